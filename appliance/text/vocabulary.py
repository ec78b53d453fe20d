"""What each token id stands for, as bytes: byte-level vocabularies and those of SentencePiece with byte fallback.

Invariants: an answer's text is the bytes of its tokens, one after the other, read as UTF-8; a special token adds
nothing to an answer and shows its name elsewhere.  A decoder that does anything else is refused at load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appliance.text.errors import TokenizerRefused

Style = Literal["byte_level", "sentencepiece"]
_FALLBACK_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_MARK = "▁"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """One entry of `added_tokens` in tokenizer.json."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token id -> bytes, fixed at load."""

    token_bytes: tuple[bytes, ...]
    """By id; a special token's name; empty for an id without a token."""
    special_ids: frozenset[int]
    """Tokens that are no part of an answer's text."""
    drops_first_space: bool
    """Whether the model's encoder puts a space before a text, which the decoder of a whole text takes away."""

    @classmethod
    def build(cls, tokenizer_json: Mapping[str, Any], ids: Mapping[str, int]) -> Vocabulary:
        """Read the decoder and every token.

        Args:
            tokenizer_json: the parsed file.
            ids: token -> id, added tokens included.
        """
        decoder = _flatten(tokenizer_json.get("decoder"))
        style = _style(decoder)
        has_fallback = any(part["type"] == "ByteFallback" for part in decoder)
        added = {token.id: token for token in added_tokens(tokenizer_json)}
        table = [b""] * (max(ids.values(), default=-1) + 1)
        for token, token_id in ids.items():
            if token_id in added:
                table[token_id] = _added_bytes(added[token_id], style)
            elif style == "byte_level":
                table[token_id] = _byte_level(token)
            else:
                table[token_id] = _sentencepiece(token, has_fallback=has_fallback)
        return cls(
            token_bytes=tuple(table),
            special_ids=frozenset(token.id for token in added.values() if token.special),
            drops_first_space=_drops_first_space(decoder),
        )


def added_tokens(tokenizer_json: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    """Read `added_tokens`."""
    try:
        return tuple(
            AddedToken(int(entry["id"]), str(entry["content"]), bool(entry["special"]))
            for entry in tokenizer_json.get("added_tokens") or ()
        )
    except (KeyError, TypeError, ValueError) as failure:
        raise TokenizerRefused("tokenizer.json", "added_tokens is not a list of tokens") from failure


def _flatten(decoder: Any) -> Sequence[Mapping[str, Any]]:  # noqa: ANN401 - parsed JSON
    if not isinstance(decoder, dict) or "type" not in decoder:
        raise TokenizerRefused("tokenizer.json", "it names no decoder")
    if decoder["type"] == "Sequence":
        return [part for child in decoder.get("decoders") or () for part in _flatten(child)]
    return [decoder]


def _style(decoder: Sequence[Mapping[str, Any]]) -> Style:
    kinds = [str(part["type"]) for part in decoder]
    if kinds == ["ByteLevel"]:
        return "byte_level"
    if kinds == ["Metaspace"] and decoder[0].get("replacement", _SPACE_MARK) == _SPACE_MARK:
        return "sentencepiece"
    if kinds[:1] == ["Replace"] and _restores_spaces(decoder[0]) and kinds[1:] in _SENTENCEPIECE_TAILS:
        if kinds[-1] == "Strip" and (decoder[-1].get("content"), decoder[-1].get("stop")) != (" ", 0):
            raise TokenizerRefused("tokenizer.json", "its decoder strips something other than leading spaces")
        return "sentencepiece"
    raise TokenizerRefused("tokenizer.json", f"decoder {kinds} is neither byte-level nor SentencePiece's")


_SENTENCEPIECE_TAILS: tuple[list[str], ...] = (
    ["ByteFallback", "Fuse", "Strip"],
    ["ByteFallback", "Fuse"],
    ["Fuse", "Strip"],
    ["Fuse"],
    ["ByteFallback"],
    [],
)


def _restores_spaces(part: Mapping[str, Any]) -> bool:
    return bool(part.get("pattern") == {"String": _SPACE_MARK} and part.get("content") == " ")


def _drops_first_space(decoder: Sequence[Mapping[str, Any]]) -> bool:
    last = decoder[-1]
    if last["type"] == "Strip":
        return int(last.get("start", 0)) > 0
    return bool(last["type"] == "Metaspace" and last.get("prepend_scheme", "always") != "never")


def _byte_level_alphabet() -> dict[str, int]:
    # GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if chr(byte) not in alphabet]
    return alphabet | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError:
        return token.encode()  # a token outside the alphabet stands for itself


def _sentencepiece(token: str, *, has_fallback: bool) -> bytes:
    byte = _FALLBACK_BYTE.fullmatch(token) if has_fallback else None
    return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE_MARK, " ").encode()


def _added_bytes(token: AddedToken, style: Style) -> bytes:
    if token.special or style == "byte_level":
        return token.content.encode()
    return token.content.replace(_SPACE_MARK, " ").encode()
