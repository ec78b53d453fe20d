"""A model's chat template: from signed bytes to a function of messages, bounded in steps and in size.

Invariants: a template comes from the model folder, never from a client; it sees the messages and the tokenizer's own
token names, nothing else - no clock, no environment, no file; it renders at most `MAX_RENDERED_CHARACTERS` in at most
`MAX_LOOP_STEPS` loop steps, without recursion.  What it renders for ordinary text is what
`transformers.apply_chat_template` renders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from appliance.errors import BadRequest
from appliance.text.errors import TemplateRefused
from appliance.text.template_syntax import FILTERS, METERED_FILTER, TESTS, check_syntax, meter_loops

MAX_SOURCE_CHARACTERS = 256 * 1024
MAX_RENDERED_CHARACTERS = 16 * 2**20
MAX_LOOP_STEPS = 2**18
MAX_RANGE = 4096
_METER = "meter_"
_PROBE = ({"role": "user", "content": "a"},)


class _Refusal(Exception):
    """The template itself refuses these messages; the text is the template author's."""


class _TooMuch(Exception):
    """A bound was met."""


class ChatTemplate:
    """One compiled template.  Holds no state between renderings."""

    def __init__(self, source: str, constants: Mapping[str, object]) -> None:
        """Check and compile.

        Args:
            source: the template, from verified bytes.
            constants: what it may read beside the messages, such as `bos_token`.

        Raises:
            TemplateRefused: not Jinja, outside the allowed constructs, or broken for the simplest conversation.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise TemplateRefused(f"longer than {MAX_SOURCE_CHARACTERS} characters")
        self.source = source
        self._constants = {"tools": None, "documents": None, **constants}
        self._template = _compile(source)
        try:
            self._render(_PROBE, add_generation_prompt=True)
        except _Refusal:
            pass  # a template may insist on a system turn
        except (TemplateError, _TooMuch, ArithmeticError, LookupError, TypeError, ValueError) as failure:
            clock = "; it needs strftime_now, which is not given" if "strftime_now" in source else ""
            raise TemplateRefused(f"it fails for one user turn ({type(failure).__name__}){clock}") from failure

    def render(self, messages: Sequence[Mapping[str, object]], *, add_generation_prompt: bool = True) -> str:
        """Render a conversation.

        Raises:
            BadRequest: the template refuses this conversation, or it would become too long.
        """
        try:
            return self._render(messages, add_generation_prompt=add_generation_prompt)
        except _Refusal as refusal:
            said = str(refusal)[:200].encode("unicode_escape").decode("ascii")
            raise BadRequest(
                f"the model's chat template refuses these messages: {said}", code="template_refused", param="messages"
            ) from None
        except _TooMuch:
            raise BadRequest(
                "the conversation is too long for the chat template", code="context_length_exceeded", param="messages"
            ) from None
        except (TemplateError, SecurityError, ArithmeticError, LookupError, TypeError, ValueError) as failure:
            raise BadRequest(
                "the model's chat template cannot render these messages", code="template_failed", param="messages"
            ) from failure

    def _render(self, messages: Sequence[Mapping[str, object]], *, add_generation_prompt: bool) -> str:
        values = {
            **self._constants,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            _METER: _Meter(),
        }
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(values):
            size += len(piece)
            if size > MAX_RENDERED_CHARACTERS:
                raise _TooMuch
            pieces.append(piece)
        return "".join(pieces)


class _Meter:
    """Loop steps of one rendering."""

    def __init__(self) -> None:
        self._num_steps = 0

    def count(self) -> None:
        self._num_steps += 1
        if self._num_steps > MAX_LOOP_STEPS:
            raise _TooMuch


def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters = {name: known for name, known in environment.filters.items() if name in FILTERS}
    environment.filters["tojson"] = _to_json
    environment.filters[METERED_FILTER] = _metered
    environment.tests = {name: known for name, known in environment.tests.items() if name in TESTS}
    environment.globals = {"raise_exception": _raise_exception, "range": _bounded_range, "namespace": Namespace}
    try:
        tree = environment.parse(source)
        check_syntax(tree)
        code = environment.compile(meter_loops(tree))
    except TemplateSyntaxError as failure:
        raise TemplateRefused("it is not a Jinja template", line=failure.lineno) from failure
    except RecursionError as failure:
        raise TemplateRefused("it is nested too deeply") from failure
    return Template.from_code(environment, code, environment.make_globals(None))


@pass_context
def _metered(context: Context, values: Iterable[object]) -> Iterator[object]:
    meter: _Meter = context[_METER]
    for value in values:
        meter.count()
        yield value


def _raise_exception(message: object) -> NoReturn:
    raise _Refusal(str(message))


def _bounded_range(*bounds: int) -> range:
    steps = range(*bounds)
    if len(steps) > MAX_RANGE:
        raise _TooMuch
    return steps


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own escapes for HTML; a prompt is not HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)
