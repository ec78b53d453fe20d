"""One entry as one row of records.csv (RFC 4180), safe to open in a spreadsheet.

Pure.  Every member of the leaf has a column, known facts have one of their own beside the whole `facts`, and nothing is
rounded or left out.  Every cell is quoted.  A cell that a spreadsheet would run as a formula gets an apostrophe before
it, also behind a `;`, `|`, tab or line break, where a reader of another country's settings would begin a new cell.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from audit.event import JsonValue
from audit.leaf import Leaf, fact_text

LEAF_NAMES = (
    *("index", "kind", "actor", "role", "tenant", "subject", "epoch", "head", "node_id", "boot_id", "mono_ns"),
    "ts_us",
)
FACT_NAMES = (
    *("route", "model_root", "decision", "outcome", "label", "code", "reason"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "total_ms"),
)
HEADER = ("time", *LEAF_NAMES, *FACT_NAMES, "facts", "leaf_hash")
_CELL = "\ud800"
"""Between cells until they are quoted: a lone surrogate, which no text of a leaf can hold."""
_FORMULA = re.compile("[\ud800;|\t\r\n](?=\\s*[=+@\uff0b\uff0d\uff1d\uff20-]|[\t\r\n])")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def csv_header() -> bytes:
    """Return the first row."""
    return _csv_row(HEADER)


def facts_text(leaf_bytes: bytes) -> str:
    """Return the facts of a leaf as they are written in it: its one form has them between two members' names.

    A quote inside any text of a leaf is escaped, so neither name can stand anywhere else with its quotes.
    """
    return leaf_bytes[leaf_bytes.index(b'"facts":') + 8 : leaf_bytes.rindex(b',"head":')].decode()


def csv_row(leaf: Leaf, facts_written: str, digest: bytes) -> bytes:
    """Return the row of an entry with these facts and this leaf hash."""
    event, facts = leaf.event, leaf.event.facts
    return _csv_row(
        [
            utc_text(event.ts_us),
            *(str(leaf.index), event.kind, event.actor, event.role, event.tenant, event.subject),
            *(str(leaf.place.epoch), str(leaf.head), leaf.place.node_id, leaf.place.boot_id),
            *(str(event.monotonic_ns), str(event.ts_us)),
            *(_cell(facts.get(name)) for name in FACT_NAMES),
            facts_written,
            digest.hex(),
        ]
    )


def utc_text(ts_us: int) -> str:
    """Write a time with its microseconds, in UTC."""
    return f"{(_EPOCH + dt.timedelta(microseconds=ts_us)).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else fact_text(value)


def _csv_row(cells: Sequence[str]) -> bytes:
    row = _FORMULA.sub(r"\g<0>'", _CELL + _CELL.join(cells)).replace('"', '""').replace(_CELL, '","')
    return f'{row[2:]}"\r\n'.encode()
