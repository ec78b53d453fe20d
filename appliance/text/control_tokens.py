"""Rendering a conversation so that control tokens come from the template alone, whatever the messages say.

The trouble: a template renders to one string, in which the template's own `<|end|>` and one typed by a user look the
same.  The way out keeps the string exactly as the template makes it for ordinary text, so that tokens equal those of
`transformers`:

1. In every message, each control token's name is broken by one mark, a character that no message contains.  (The mark
   goes before the last character of the name, so that a template which rewrites `<|` itself still finds it.)
2. The template renders.  Every unbroken name is now one of the template's own, unless pieces of messages were joined
   into a name by the template.
3. The template renders a second time, over messages whose every visible character is one that no name contains.  If
   both renderings do not hold the same names in the same order, the conversation is refused.
4. The names in the first rendering are the control tokens; the marks are taken out again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.errors import BadRequest
from appliance.inference import Message
from appliance.text.chat_template import ChatTemplate
from appliance.text.errors import TokenizerRefused

_MARKS: Final = range(0xF0000, 0xFFFFE)
"""Private-use characters: few texts have any, none has all."""
_VISIBLE = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a rendered conversation."""

    text: str
    is_control: bool
    """True: the name of a control token, put there by the template."""


class ConversationRenderer:
    """Renders messages into text and control tokens.  Holds no state between calls."""

    def __init__(self, template: ChatTemplate, names: Iterable[str]) -> None:
        """Prepare for one tokenizer.

        Raises:
            TokenizerRefused: a control token's name has one character only and cannot be told from text.
        """
        ordered = sorted(names, key=len, reverse=True)
        for name in ordered:
            if len(name) < 2:  # noqa: PLR2004 - one character cannot be broken
                raise TokenizerRefused("tokenizer.json", f"control token {name!r} is a single character")
        self._template = template
        # Longest first at each place, as the tokenizer itself matches; no name at all must match nothing.
        self._names = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        used = set("".join(ordered))
        self._filler = next(chr(code) for code in range(0x25A0, 0x2600) if chr(code) not in used)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> tuple[Piece, ...]:
        """Render a conversation.

        Raises:
            BadRequest: the template refuses it, or message texts would join into a control token.
        """
        mark = _absent_character(messages)
        broken = [_as_values(turn, lambda text: self._break_names(text, mark)) for turn in messages]
        rendered = self._template.render(broken, add_generation_prompt=add_generation_prompt)
        blank = [_as_values(turn, lambda text: _VISIBLE.sub(self._filler, text)) for turn in messages]
        skeleton = self._template.render(blank, add_generation_prompt=add_generation_prompt)
        if self._names.findall(rendered) != self._names.findall(skeleton):
            raise BadRequest(
                "the messages would change the control tokens around them; remove what looks like one",
                code="control_token",
                param="messages",
            )
        return tuple(self._pieces(rendered, mark))

    def _break_names(self, text: str, mark: str) -> str:
        # Names may overlap one another: repeat until none is left.
        while (broken := self._names.sub(lambda match: f"{match[0][:-1]}{mark}{match[0][-1]}", text)) != text:
            text = broken
        return text

    def _pieces(self, rendered: str, mark: str) -> Iterable[Piece]:
        end = 0
        for match in self._names.finditer(rendered):
            if match.start() > end:
                yield Piece(rendered[end : match.start()].replace(mark, ""), is_control=False)
            yield Piece(match[0], is_control=True)
            end = match.end()
        if end < len(rendered):
            yield Piece(rendered[end:].replace(mark, ""), is_control=False)


def _as_values(turn: Message, rewrite: Callable[[str], str]) -> dict[str, object]:
    values: dict[str, object] = {"role": turn.role, "content": rewrite(turn.content)}
    if turn.name is not None:
        values["name"] = rewrite(turn.name)
    return values


def _absent_character(messages: Sequence[Message]) -> str:
    used = set[str]()
    for turn in messages:
        used.update(turn.content, turn.name or "")
    for code in _MARKS:
        if chr(code) not in used:
            return chr(code)
    raise BadRequest("the messages use every private-use character there is", code="bad_value", param="messages")
