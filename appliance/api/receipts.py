"""A receipt as answers carry it: `x-cloister-receipt: <index>:<leaf hash>`."""

from __future__ import annotations

from audit.event import Receipt

RECEIPT_HEADER = "x-cloister-receipt"


def shown_receipt(receipt: Receipt) -> str:
    """Give a receipt as headers carry it."""
    return f"{receipt.index}:{receipt.leaf_hash}"
