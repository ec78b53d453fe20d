"""A receipt as answers carry it and clients keep it: `x-cloister-receipt: <index>:<leaf hash>`.

Promise: one receipt has one spelling.  Never: says that the record is in the log; a proof does that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from audit.event import Receipt

RECEIPT_HEADER = "x-cloister-receipt"
_FORM = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})", re.ASCII)


class ReceiptMalformed(ValueError):
    """Text that no answer of ours carried."""

    def __init__(self) -> None:
        super().__init__("a receipt is an index, a colon and 64 lower-case hexadecimal digits")


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """What a client kept of an answer."""

    index: int
    leaf_hash: bytes

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse the header's value.

        Raises:
            ReceiptMalformed: it is not of that form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ReceiptMalformed
        return cls(int(match[1]), bytes.fromhex(match[2]))


def shown_receipt(receipt: Receipt) -> str:
    """Give a receipt as headers carry it."""
    return f"{receipt.index}:{receipt.leaf_hash}"
