import pytest
from tiny_tokenizers import BRACKETS, CHATML

from appliance.errors import BadRequest
from appliance.text import chat_template
from appliance.text.chat_template import ChatTemplate
from appliance.text.errors import TemplateRefused

TURN = [{"role": "user", "content": "hello"}]


def _render(source, messages=TURN, **constants):
    return ChatTemplate(source, constants).render(messages)


@pytest.mark.parametrize(
    ("construct", "source"),
    [
        ("class of a string", "{{ ''.__class__.__mro__ }}"),
        ("key of an object", "{{ messages['__class__'] }}"),
        ("attribute by filter", "{{ messages | attr('__class__') }}"),
        ("globals of a function", "{{ raise_exception.__globals__ }}"),
        ("private name", "{{ _meter }}"),
        ("the meter itself", "{{ messages | metered_ }}"),
        ("the template object", "{{ self }}"),
        ("import", "{% import 'x' as y %}"),
        ("include", "{% include 'x' %}"),
        ("inheritance", "{% extends 'x' %}"),
        ("block", "{% block a %}{% endblock %}"),
        ("unknown global", "{{ cycler('a') }}"),
        ("dict constructor", "{{ dict(a=1) }}"),
        ("lipsum", "{{ lipsum(100000) }}"),
        ("format method", "{{ '{0.__class__}'.format(messages) }}"),
        ("format operator", "{{ '%99999999d' % messages }}"),
        ("computed modulo", "{{ 'a' % (messages | length) }}"),
        ("long by product", "{{ 'a' * 999999999 }}"),
        ("long by power", "{{ 9 ** 999999999 }}"),
        ("long by padding", "{{ 'a'.ljust(999999999) }}"),
        ("long by centring", "{{ 'a' | center(999999999) }}"),
        ("encoding", "{{ 'a'.encode('utf-8') }}"),
        ("recursive loop", "{% for a in messages recursive %}{{ loop(a) }}{% endfor %}"),
        ("recursive macro", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        ("macros in a ring", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}"),
        ("call of a result", "{{ messages[0].get('a')() }}"),
        ("unpacked arguments", "{{ range(*messages) }}"),
        ("caller block", "{% macro a() %}{% endmacro %}{% call a() %}{% endcall %}"),
        ("statement extension", "{% do messages.append(1) %}"),
        ("change of a list", "{{ messages.append(1) }}"),
        ("unknown filter", "{{ messages | xmlattr }}"),
        ("unknown test", "{{ messages is callable }}"),
        ("not Jinja", "{{ messages"),
        ("too deep", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"),
        ("too long", "a" * (chat_template.MAX_SOURCE_CHARACTERS + 1)),
        ("fails at once", "{{ strftime_now('%d') }}"),
        ("divides by zero", "{{ 1 // 0 }}"),
    ],
)
def test_what_is_not_on_the_list_is_refused_at_load(construct, source):
    """Nothing outside the closed list of constructs is ever compiled into a served template."""
    with pytest.raises(TemplateRefused):
        ChatTemplate(source, {})
    assert construct


def test_a_refusal_names_the_line():
    """The operator finds the place."""
    with pytest.raises(TemplateRefused, match="line 3: calling 'cycler'"):
        ChatTemplate("a\nb\n{{ cycler() }}", {})


def test_a_filter_named_at_run_time_is_on_the_list_too():
    """`map` takes a filter by name: only allowed ones exist."""
    assert _render("{{ messages | map(attribute='content') | map('upper') | join }}") == "HELLO"
    with pytest.raises(TemplateRefused):
        ChatTemplate("{{ messages | map('xmlattr') | join }}", {})


def test_a_key_built_at_run_time_reaches_nothing():
    """A private name put together by the template is undefined, not an attribute."""
    assert _render("{{ messages['__cl' ~ 'ass__'] }}") == ""


def test_raise_exception_is_a_refusal_with_the_template_s_words():
    """The client is told what the model's author says, on one line and not at length."""
    template = ChatTemplate(BRACKETS, {"bos_token": "<s>", "eos_token": "</s>"})
    with pytest.raises(BadRequest, match="only user and assistant turns") as refusal:
        template.render([{"role": "system", "content": "a"}])
    assert (refusal.value.code, refusal.value.param) == ("template_refused", "messages")
    loud = ChatTemplate(
        "{% if messages | length > 1 %}{{ raise_exception('a\\n' ~ messages[1].content) }}{% endif %}", {}
    )
    with pytest.raises(BadRequest) as refusal:
        loud.render([*TURN, {"role": "user", "content": "\x1b[2J" * 1000}])
    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 1000


def test_a_conversation_that_breaks_the_template_is_a_refusal():
    """An error inside Jinja is the request's, without Jinja's words."""
    template = ChatTemplate("{{ messages[0].content }}{% if messages | length > 1 %}{{ 1 + '' }}{% endif %}", {})
    with pytest.raises(BadRequest, match="cannot render these messages") as refusal:
        template.render([*TURN, *TURN])
    assert refusal.value.code == "template_failed"


def test_loops_are_metered(monkeypatch):
    """Steps of all loops together are bounded, inside macros too."""
    monkeypatch.setattr(chat_template, "MAX_LOOP_STEPS", 100)
    nested = (
        "{% macro go(t) %}{% for a in t %}{% for b in t %}x{% endfor %}{% endfor %}{% endmacro %}{{ go(messages) }}"
    )
    template = ChatTemplate(nested, {})
    assert template.render(TURN * 9) == "x" * 81
    with pytest.raises(BadRequest) as refusal:
        template.render(TURN * 10)
    assert refusal.value.code == "context_length_exceeded"


def test_ranges_and_output_are_bounded(monkeypatch):
    """A large range is never made, and rendering stops where the output is too long."""
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARACTERS", 100)
    grows = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", {})
    assert len(grows.render(TURN * 20)) == 100
    with pytest.raises(BadRequest):
        grows.render(TURN * 21)
    with pytest.raises(TemplateRefused):
        ChatTemplate("{% for i in range(999999999) %}{% endfor %}", {})


def test_loop_variables_survive_metering():
    """What templates ask of a loop is what Jinja gives."""
    source = (
        "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }}"
        "{{ ' first' if loop.first }}{{ ' last' if loop.last }}"
        "{{ ' after ' ~ loop.previtem.content if not loop.first }}"
        "{{ ' before ' ~ loop.nextitem.content if not loop.last }};"
        "{% endfor %}{% for m in nothing %}never{% else %}none{% endfor %}"
    )
    messages = [{"role": "user", "content": text} for text in "abc"]
    assert _render(source, messages) == "0/3 first before b;1/3 after a before c;2/3 last after b;none"


def test_the_world_is_not_in_a_template():
    """No clock, no environment: what is undefined is empty, and a guarded use of the clock is not made."""
    source = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}no clock{% endif %}{{ environ }}"
    assert _render(source) == "no clock"


def test_json_is_not_escaped_for_html():
    """`tojson` gives the JSON that models were trained on."""
    assert _render("{{ messages | tojson }}", [{"content": "<é>"}]) == '[{"content": "<é>"}]'


def test_two_renderings_do_not_share_state():
    """A template is a function of its messages."""
    template = ChatTemplate(CHATML, {})
    first = template.render(TURN)
    template.render([{"role": "user", "content": "other"}])
    assert template.render(TURN) == first
