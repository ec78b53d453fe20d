"""What no policy may say, and what no parser may see."""

from __future__ import annotations

import subprocess
import sys

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.bundle import SCHEMA_FILE, read_source_bundle
from policies.compile import compile_policies
from policies.errors import BundleRefused, PolicyRefused, TextRefused
from policies.lint import INVARIANTS_FILE, MAX_DEPTH
from policies.obligations import ObligationUnusable, read_obligations, strictest
from policies.text_guard import MAX_CONDITIONALS, MAX_FILE_BYTES, MAX_NESTING, guarded_text

SCHEMA = cedarpy.Schema.from_str(read_source_bundle()[SCHEMA_FILE].decode())
SCOPE = '(principal, action == Action::"infer", resource)'


def compiled(text: str, file: str = "base/x.cedar"):
    """Compile one file against the delivered schema."""
    return compile_policies({file: text.encode()}, SCHEMA)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"permit {SCOPE};", "no @id"),
        (f'@id("") permit {SCOPE};', "unusable"),
        (f"@id permit {SCOPE};", "unusable"),
        (f'@id("A b") permit {SCOPE};', "unusable"),
        (f'@id("a") permit {SCOPE}; @id("a") forbid {SCOPE};', "taken"),
        (f'@id("site.a") permit {SCOPE};', "whose rule"),
        (f'@id("a") @log_level("all") permit {SCOPE};', "log_level"),
        (f'@id("a") @log_level permit {SCOPE};', "log_level"),
        (f'@id("a") @max_tokens_cap("0") permit {SCOPE};', "max_tokens_cap"),
        (f'@id("a") @max_tokens_cap("-1") permit {SCOPE};', "max_tokens_cap"),
        (f'@id("a") @max_tokens_cap("1e3") permit {SCOPE};', "max_tokens_cap"),
        (f'@id("a") @max_tokens_cap("9999999999999999") permit {SCOPE};', "max_tokens_cap"),
        (f'@id("a") @max_token_cap("1") permit {SCOPE};', "unknown annotation @max_token_cap"),
        (f'@id("a") @watermark("on") permit {SCOPE};', "unknown annotation"),
        (f'@id("a") @log_level("none") forbid {SCOPE};', "forbid with obligations"),
        (f'@id("a") forbid {SCOPE} when {{ context.n + 1 > 2 }};', "arithmetic"),
        (f'@id("a") forbid {SCOPE} when {{ context.n - 1 > 2 }};', "arithmetic"),
        (f'@id("a") forbid {SCOPE} when {{ context.n * 2 > 2 }};', "arithmetic"),
        (f'@id("a") forbid {SCOPE} when {{ -context.n > 2 }};', "arithmetic"),
        (f'@id("a") permit {SCOPE} unless {{ true || [1, 2].contains(context.n + 1) }};', "arithmetic"),
        (f'@id("a") permit {SCOPE} when {{ {{a: context.n + 1}}.a > 2 }};', "arithmetic"),
        (f'@id("a") permit {SCOPE} when {{ if context.n + 1 > 2 then true else false }};', "arithmetic"),
        (f'@id("a") permit {SCOPE} when {{ decimal("1.0").lessThan(decimal("2.0")) }};', "operator"),
        (f'@id("a") permit {SCOPE} when {{ datetime("2026-01-01") < datetime("2026-01-02") }};', "operator"),
        (f'@id("a") permit {SCOPE} when {{ context.source.isInRange(ip("10.0.0.0/99")) }};', "extension"),
        (f'@id("a") permit {SCOPE} when {{ context.purpose == "x" }};', "purpose"),
        (f'@id("a") permit {SCOPE} when {{ context.label == "x" }};', "compat|type"),
        ('@id("a") permit (principal, action == Action::"inferr", resource);', "inferr"),
        ('@id("a") permit (principal in Role::"auditer", action, resource);', "auditer"),
        ('@id("a") permit (principal, action, resource) when { context.label < 2 };', "label"),
        ('@id("a") permit (principal, action, resource) when { resource.approved };', "approved"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused(text, complaint):
    """Each with the file, the policy and the remedy in the message."""
    with pytest.raises(PolicyRefused, match=complaint) as refusal:
        compiled(text)
    assert refusal.value.file == "base/x.cedar"
    assert refusal.value.hint
    assert refusal.value.policy_id in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("permit", "correct the policy text"),
        ('@id("a") permit (principal == ?principal, action, resource);', "template"),
        (f'@id("a") @id("b") permit {SCOPE};', "correct the policy text"),
    ],
)
def test_a_file_that_is_no_set_of_policies_is_refused(text, complaint):
    """Not parsed means not loaded."""
    with pytest.raises(BundleRefused, match=complaint):
        compiled(text)


def test_whose_rule_it_is_shows_in_its_id():
    """Files in site/ hold site rules only, and the invariants hold no permit."""
    with pytest.raises(PolicyRefused, match="whose rule"):
        compiled(f'@id("a") permit {SCOPE};', "site/x.cedar")
    compiled(f'@id("site.a") permit {SCOPE};', "site/x.cedar")
    with pytest.raises(PolicyRefused, match="permit among the invariants"):
        compiled(f'@id("a") permit {SCOPE};', INVARIANTS_FILE)


def test_an_unguarded_optional_attribute_is_refused():
    """With a schema that has one, Cedar's validator asks for the guard; with the guard it is taken."""
    schema = cedarpy.Schema.from_str(
        "entity User; entity Model { owner?: String };"
        "action infer appliesTo { principal: [User], resource: [Model], context: {} };"
    )
    bare = f'@id("a") forbid {SCOPE} when {{ resource.owner == "x" }};'
    with pytest.raises(PolicyRefused, match="owner"):
        compile_policies({"base/x.cedar": bare.encode()}, schema)
    guarded = f'@id("a") forbid {SCOPE} when {{ resource has owner && resource.owner == "x" }};'
    compile_policies({"base/x.cedar": guarded.encode()}, schema)


def test_every_reviewed_operator_is_taken():
    """The closed list is wide enough to write real policies."""
    body = """
      (context.n == 1 || context.n != 2) && context.n < 3 && context.n <= 3 && context.n > 0 && context.n >= 1
      && !context.stream && [1, 2].contains(context.n) && [1].containsAll([1]) && [1].containsAny([1])
      && !([1].isEmpty()) && {a: 1}.a == 1 && principal is User && principal in Role::"developer"
      && principal has clearance && resource.root like "0*" && (if context.stream then false else true)
      && context.source.isInRange(ip("10.0.0.0/8")) && context.source.isIpv4() && !context.source.isIpv6()
      && !context.source.isLoopback() && !context.source.isMulticast()"""
    assert set(compiled(f'@id("a") permit {SCOPE} when {{ {body} }};').permits) == {"a"}


PARSE = "import cedarpy, sys; cedarpy.PolicySet.from_str(sys.stdin.read())"


@pytest.mark.parametrize(
    "body",
    ["(" * 5000 + "true" + ")" * 5000, "if true then true else " * 5000 + "true", "[" * 5000 + "]" * 5000 + " == []"],
    ids=["brackets", "ifs", "sets"],
)
def test_text_that_kills_the_parser_never_reaches_it(body):
    """The parser dies of it in a child; we refuse it in ours."""
    text = f'@id("a") permit {SCOPE} when {{ {body} }};'
    command = ["bash", "-c", 'ulimit -S -s 8192 -c 0; exec "$0" -c "$1"', sys.executable, PARSE]
    child = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert child.returncode < 0, "the parser has learned to survive this: the guard may be relaxed"
    with pytest.raises(TextRefused, match="nested deeper"):
        compiled(text)


def test_the_deepest_text_that_passes_is_parsed():
    """The bound is well inside what the parser takes."""
    depth = MAX_NESTING - 1
    nested = "(" * depth + "true" + ")" * depth
    compiled(f'@id("a") permit {SCOPE} when {{ {nested} }};')
    with pytest.raises(TextRefused):
        compiled(f'@id("a") permit {SCOPE} when {{ ({nested}) }};')
    chain = "if true then true else " * MAX_CONDITIONALS + "true"
    compiled(f'@id("a") permit {SCOPE} when {{ {chain} }}; @id("b") permit {SCOPE} when {{ {chain} }};')
    with pytest.raises(TextRefused):
        compiled(f'@id("a") permit {SCOPE} when {{ if true then true else {chain} }};')


@pytest.mark.parametrize("length", [60, 200, 5000])
@pytest.mark.parametrize("link", [" && true", " || true", " in context", ".a", '["a"]', " == 1", ".contains(1)"])
def test_long_chains_are_refused(length, link):
    """Without a bracket a chain is flat text but deep structure."""
    with pytest.raises(BundleRefused):
        compiled(f'@id("a") permit {SCOPE} when {{ true{link * length} }};')


def test_the_longest_chain_that_passes_decides():
    """A chain at the bound is taken by the parser, the validator and the evaluator; one link more is refused."""
    chain = "context.stream" + " || context.stream" * (MAX_DEPTH - 2)
    assert set(compiled(f'@id("a") permit {SCOPE} when {{ {chain} }};').permits) == {"a"}
    with pytest.raises(PolicyRefused, match="deeper than"):
        compiled(f'@id("a") permit {SCOPE} when {{ {chain} || context.stream }};')


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"// \xe2\x80\xae hidden\n",
        b"// \x00\n",
        b"// \x1b[2J\n",
        b"\xef\xbb\xbf// bom\n",
        b'// ok\n@id("a',
        b" " * (MAX_FILE_BYTES + 1),
    ],
    ids=["no UTF-8", "bidi", "NUL", "escape", "BOM", "open string", "too large"],
)
def test_text_that_hides_something_is_refused(content):
    """What a reviewer reads is what is parsed."""
    with pytest.raises(TextRefused) as refusal:
        guarded_text("base/x.cedar", content)
    assert refusal.value.file == "base/x.cedar"


def test_brackets_in_comments_and_strings_do_not_count():
    """Neither to hide nesting nor to invent it."""
    deep = "(" * 100
    guarded_text("base/x.cedar", f'// {deep}\n@id("{deep}") // "\n'.encode())
    hidden = '"' + ")" * 100 + '"'
    with pytest.raises(TextRefused):
        guarded_text("base/x.cedar", f"{hidden} {'(' * 20} {hidden} {'(' * 20}".encode())
    with pytest.raises(TextRefused):
        guarded_text("base/x.cedar", f'"\\"" {deep}'.encode())
    with pytest.raises(TextRefused):
        guarded_text("base/x.cedar", f"// comment ends at a carriage return\r{deep}".encode())


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='()[]{}<>"\\/;\n if', max_size=200))
def test_the_guard_is_total(text):
    """Any text passes unchanged or is refused by our own error."""
    try:
        assert guarded_text("f", text.encode()) == text
    except TextRefused as refusal:
        assert refusal.file == "f"  # noqa: PT017 - both outcomes are right


def test_strictest_needs_something_to_unite():
    """No permit, no obligations: an allow without reasons cannot be built by accident."""
    with pytest.raises(ValueError, match="empty"):
        strictest([])
    with pytest.raises(ObligationUnusable, match="unknown annotation @redact"):
        read_obligations({"redact": "pii"})
