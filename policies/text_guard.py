"""Refuses policy text that a parser should never see.

The Cedar parser recurses on the machine stack: some hundred nested brackets, or a few thousand chained `if`s, end the
whole process.  So size, nesting and characters are bounded here, on the raw bytes, before any parsing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from policies.errors import TextRefused

MAX_FILE_BYTES: Final = 256 * 1024
MAX_NESTING: Final = 32
"""Open brackets at any point of a file; the parser survives about 600."""
MAX_CONDITIONALS: Final = 32
"""`if` expressions in one policy; they nest without brackets."""

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> //[^\n\r]*)
    | (?P<string>  "(?:[^"\\]|\\.)*")
    | (?P<quote>   ")
    | (?P<open>    [(\[{<])
    | (?P<close>   [)\]}>])
    | (?P<word>    [A-Za-z_][A-Za-z0-9_]*)
    | (?P<end>     ;)
    """,
    re.VERBOSE | re.DOTALL,
)


def guarded_text(file: str, content: bytes, *, angles_nest: bool = False) -> str:
    """Decode a file that is safe to parse.

    Args:
        file: name for the error.
        content: the raw bytes.
        angles_nest: `<` and `>` are brackets (schema) rather than comparisons (policies).

    Raises:
        TextRefused: too large, too deep, or not plain UTF-8 text.
    """
    if len(content) > MAX_FILE_BYTES:
        raise TextRefused(f"{len(content)} bytes, at most {MAX_FILE_BYTES} are read", hint="split the file", file=file)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise TextRefused("not UTF-8", hint="save the file as UTF-8", file=file) from None
    _refuse_hidden_characters(file, text)
    _refuse_deep_nesting(file, text, angles_nest=angles_nest)
    return text


def _refuse_hidden_characters(file: str, text: str) -> None:
    """No control or formatting characters: what a reviewer sees is what the parser reads."""
    for character in sorted(set(text)):
        if character not in "\n\r\t" and unicodedata.category(character) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}:
            raise TextRefused(
                f"holds the invisible character U+{ord(character):04X}", hint="remove it and review the line", file=file
            )


def _refuse_deep_nesting(file: str, text: str, *, angles_nest: bool) -> None:
    """Count open brackets and `if`s outside comments and strings, as the Cedar lexer would."""
    depth = conditionals = 0
    for token in _TOKEN.finditer(text):
        symbol = token.group()
        if symbol in "<>" and not angles_nest:
            continue
        match token.lastgroup:
            case "quote":
                raise TextRefused("a string is not closed", hint="close it", file=file)
            case "open":
                depth += 1
            case "close":
                depth = max(0, depth - 1)
            case "word" if symbol == "if":
                conditionals += 1
            case "end":
                conditionals = 0
            case _:
                pass
        if depth > MAX_NESTING or conditionals > MAX_CONDITIONALS:
            line = text.count("\n", 0, token.start()) + 1
            raise TextRefused(
                f"line {line}: nested deeper than {MAX_NESTING} brackets or {MAX_CONDITIONALS} ifs",
                hint="split the policy",
                file=file,
            )
