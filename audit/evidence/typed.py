"""The entries as typed columns: records.parquet, integers exact, times as times.

A fact whose value is not of its column's type is null there; the column `facts` has all of them, as they were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from audit.leaf import Leaf

ROWS_PER_GROUP = 8_192
_TEXT_FACTS = ("route", "model_root", "decision", "outcome", "label", "code", "reason", "policy_digest", "source")
_NUMBER_FACTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "queue_ms", "first_token_ms", "total_ms")
SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("kind", "actor", "role", "tenant", "subject")),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("head", pa.int64(), nullable=False),
        pa.field("node_id", pa.string(), nullable=False),
        pa.field("boot_id", pa.string(), nullable=False),
        pa.field("mono_ns", pa.int64(), nullable=False),
        *(pa.field(name, pa.string()) for name in _TEXT_FACTS),
        *(pa.field(name, pa.int64()) for name in _NUMBER_FACTS),
        pa.field("policy_ids", pa.list_(pa.string())),
        pa.field("facts", pa.string(), nullable=False),
        pa.field("leaf_hash", pa.binary(32), nullable=False),
    ]
)


def typed_row(leaf: Leaf, facts_written: str, digest: bytes) -> dict[str, Any]:
    """Return an entry's values by column."""
    event, facts = leaf.event, leaf.event.facts
    return {
        "index": leaf.index,
        "time": event.ts_us,
        "kind": event.kind,
        "actor": event.actor,
        "role": event.role,
        "tenant": event.tenant,
        "subject": event.subject,
        "epoch": leaf.place.epoch,
        "head": leaf.head,
        "node_id": leaf.place.node_id,
        "boot_id": leaf.place.boot_id,
        "mono_ns": event.monotonic_ns,
        **{name: facts[name] if isinstance(facts.get(name), str) else None for name in _TEXT_FACTS},
        **{name: facts[name] if type(facts.get(name)) is int else None for name in _NUMBER_FACTS},
        "policy_ids": _texts(facts.get("policy_ids")),
        "facts": facts_written,
        "leaf_hash": digest,
    }


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return value


class TypedWriter:
    """Writes rows in groups; holds one group in memory."""

    def __init__(self, path: Path) -> None:
        self._writer = parquet.ParquetWriter(path, SCHEMA, compression="zstd", write_statistics=True)
        self._rows: list[Mapping[str, Any]] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write what is left and close."""
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Take one row."""
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(table_of(self._rows))
            self._rows.clear()


def table_of(rows: list[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return rows as one batch of the schema."""
    columns = [pa.array([row[field.name] for row in rows], type=field.type) for field in SCHEMA]
    return pa.record_batch(columns, schema=SCHEMA)
