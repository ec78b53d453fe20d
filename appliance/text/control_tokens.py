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

One kindness comes before that.  Templates of reasoning models look for `</think>` in earlier answers, to leave the
thinking out; they would not find it broken.  So the names that are not flagged special are first left whole in
assistant turns, with the mark beside them, on the side where the thinking stands.  If a name with its mark comes out of
the template, or the names are not those of step 3, that rendering is dropped and the steps above are taken.
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

    def __init__(self, template: ChatTemplate, *, special: Iterable[str], unflagged: Iterable[str]) -> None:
        """Prepare for one tokenizer.

        Args:
            template: the model's own.
            special: names of the tokens that are flagged special.
            unflagged: names of the other control tokens, such as `<think>`.

        Raises:
            TokenizerRefused: a control token's name has one character only and cannot be told from text.
        """
        special, unflagged = tuple(special), tuple(unflagged)
        for name in (*special, *unflagged):
            if len(name) < 2:  # noqa: PLR2004 - one character cannot be broken
                raise TokenizerRefused("tokenizer.json", f"control token {name!r} is a single character")
        self._template = template
        self._names = _any_of((*special, *unflagged))
        self._special = _any_of(special)
        self._unflagged = _any_of(unflagged)
        used = set("".join((*special, *unflagged)))
        self._filler = next(chr(code) for code in range(0x25A0, 0x2600) if chr(code) not in used)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> tuple[Piece, ...]:
        """Render a conversation.

        Raises:
            BadRequest: the template refuses it, or message texts would join into a control token.
        """
        mark = _absent_character(messages)

        def rendering(rewrite: Callable[[Message, str], str]) -> str:
            values = [_as_values(turn, rewrite) for turn in messages]
            return self._template.render(values, add_generation_prompt=add_generation_prompt)

        skeleton = self._names.findall(rendering(lambda _, text: _VISIBLE.sub(self._filler, text)))
        rendered = None
        if any(turn.role == "assistant" and self._unflagged.search(turn.content) for turn in messages):
            rendered = rendering(lambda turn, text: self._beside_or_broken(turn, text, mark))
            if self._names.findall(rendered) != skeleton or self._holds_marked_name(rendered, mark):
                rendered = None
        if rendered is None:
            rendered = rendering(lambda _, text: _broken(self._names, text, mark))
        if self._names.findall(rendered) != skeleton:
            raise BadRequest(
                "the messages would change the control tokens around them; remove what looks like one",
                code="control_token",
                param="messages",
            )
        return tuple(self._pieces(rendered, mark))

    def _beside_or_broken(self, turn: Message, text: str, mark: str) -> str:
        if turn.role != "assistant":
            return _broken(self._names, text, mark)
        beside = self._unflagged.sub(lambda match: _with_mark(match[0], mark), text)
        return _broken(self._special, beside, mark)

    def _holds_marked_name(self, rendered: str, mark: str) -> bool:
        return any(_with_mark(name, mark) in rendered for name in set(self._unflagged.findall(rendered)))

    def _pieces(self, rendered: str, mark: str) -> Iterable[Piece]:
        end = 0
        for match in self._names.finditer(rendered):
            if match.start() > end:
                yield Piece(rendered[end : match.start()].replace(mark, ""), is_control=False)
            yield Piece(match[0], is_control=True)
            end = match.end()
        if end < len(rendered):
            yield Piece(rendered[end:].replace(mark, ""), is_control=False)


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    # Longest first at each place, as the tokenizer itself matches; no name at all must match nothing.
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _broken(names: re.Pattern[str], text: str, mark: str) -> str:
    # Names may overlap one another: repeat until none is left.
    while (broken := names.sub(lambda match: f"{match[0][:-1]}{mark}{match[0][-1]}", text)) != text:
        text = broken
    return text


def _with_mark(name: str, mark: str) -> str:
    return mark + name if name.startswith("</") else name + mark


def _as_values(turn: Message, rewrite: Callable[[Message, str], str]) -> dict[str, object]:
    values: dict[str, object] = {"role": turn.role, "content": rewrite(turn, turn.content)}
    if turn.name is not None:
        values["name"] = rewrite(turn, turn.name)
    return values


def _absent_character(messages: Sequence[Message]) -> str:
    used = set[str]()
    for turn in messages:
        used.update(turn.content, turn.name or "")
    for code in _MARKS:
        if chr(code) not in used:
            return chr(code)
    raise BadRequest("the messages use every private-use character there is", code="bad_value", param="messages")
