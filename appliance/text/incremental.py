"""Output tokens -> text in whole characters, as they come.

Invariants: the deltas and the flush together are exactly `ModelTokenizer.decode_output` of all tokens; a delta never
ends inside a character, so a replacement character stands only for bytes that can no longer become one.

Byte-level and byte-fallback vocabularies are the same here: both give each token as bytes, and UTF-8 itself says
where a character ends.  Nothing is decoded twice, so the cost of a token does not grow with the text.
"""

from __future__ import annotations

import codecs
from typing import Protocol


class OutputBytes(Protocol):
    """What the decoder needs of a tokenizer."""

    def output_bytes(self, token_id: int) -> bytes:
        """Give the bytes that a token adds to an answer; none for a special token."""
        ...


class IncrementalDecoder:
    """The text of one choice.  Owned by the task that reads the choice's tokens."""

    def __init__(self, tokenizer: OutputBytes) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take one token in; give the characters that are whole now, often one token's, sometimes none."""
        return self._utf8.decode(self._tokenizer.output_bytes(token_id))

    def flush(self) -> str:
        """End the text: bytes that never became a character give one replacement character."""
        return self._utf8.decode(b"", final=True)
