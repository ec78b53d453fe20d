"""Text that came from a client, made fit to stand in an error message or a log: short, and one line of printables."""

from __future__ import annotations

MAX_ECHO_CHARACTERS = 100


def shown(text: str, limit: int = MAX_ECHO_CHARACTERS) -> str:
    """Give at most `limit` characters of a client's text, everything unprintable escaped."""
    pieces: list[str] = []
    size = 0
    for character in text[: limit + 1]:
        piece = character if character.isprintable() else _escaped(character)
        size += len(piece)
        if size > limit:
            return "".join(pieces) + "..."
        pieces.append(piece)
    return "".join(pieces)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
