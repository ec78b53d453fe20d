"""Cut a filter into words, quoted values and signs; each knows its place in the text.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from audit.errors import FilterRefused

MAX_FILTER_CHARACTERS = 4_096
_SPACE = re.compile(r"\s*")
_SIGN = re.compile(r"!=|<=|>=|[=<>(),]")
_WORD = re.compile(r"""[^\s(),"'=!<>\\]+""")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPE = re.compile(r'\\(["\\])')


class TokenKind(Enum):
    """What a piece of the text is."""

    WORD = "word"
    QUOTED = "quoted value"
    SIGN = "sign"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """One piece."""

    kind: TokenKind
    text: str
    at: int
    """Index of its first character."""


def cut(text: str) -> tuple[Token, ...]:
    """Return the pieces, the last of them the end; whatever is none of them is refused at its character."""
    if len(text) > MAX_FILTER_CHARACTERS:
        raise FilterRefused(f"a filter has at most {MAX_FILTER_CHARACTERS} characters", at=MAX_FILTER_CHARACTERS)
    tokens: list[Token] = []
    at = _skip(text, 0)
    while at < len(text):
        token, at = _next(text, at)
        _require_text(token)
        tokens.append(token)
        at = _skip(text, at)
    return (*tokens, Token(TokenKind.END, "", len(text)))


def _next(text: str, at: int) -> tuple[Token, int]:
    if sign := _SIGN.match(text, at):
        return Token(TokenKind.SIGN, sign[0], at), sign.end()
    if word := _WORD.match(text, at):
        return Token(TokenKind.WORD, word[0], at), word.end()
    if text[at] == '"':
        quoted = _QUOTED.match(text, at)
        if quoted is None:
            raise FilterRefused('the quoted value has no end, or a backslash before something else than " or \\', at=at)
        return Token(TokenKind.QUOTED, _ESCAPE.sub(r"\1", quoted[1]), at), quoted.end()
    raise FilterRefused(f"{text[at]!r} means nothing here", at=at, hint="put values in double quotes")


def _require_text(token: Token) -> None:
    """No leaf holds a half surrogate, and no database of ours a NUL."""
    for character in token.text:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise FilterRefused(f"the value holds {character!a}, which no record can", at=token.at)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
