"""The one pass over an exported log: every entry in range becomes a line, a row, typed columns and a count.

Memory is one bundle, one group of typed rows, the tally and the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audit.evidence.index import CSV_NAME, JSONL_NAME, PARQUET_NAME, Drawing, SampleRule, Selection
from audit.evidence.table import csv_header, csv_row, facts_text
from audit.evidence.tally import Tally
from audit.evidence.tile_log import TileLog
from audit.evidence.typed import TypedWriter, typed_row
from audit.leaf import decode_leaf
from audit.merkle import leaf_hash
from audit.pairing import Pairing


@dataclass(frozen=True, slots=True)
class WrittenRecords:
    """What the pass found."""

    tally: Tally
    drawn: list[int]
    """Indexes of the entries to prove singly."""


def write_records(
    log: TileLog, draft: Path, selection: Selection, rule: SampleRule, pairing: Pairing
) -> WrittenRecords:
    """Write records.jsonl, records.csv and records.parquet into the draft of a pack."""
    tally, drawing = Tally(pairing), Drawing(rule)
    with (
        (draft / JSONL_NAME).open("xb") as lines,
        (draft / CSV_NAME).open("xb") as rows,
        TypedWriter(draft / PARQUET_NAME) as typed,
    ):
        rows.write(csv_header())
        for index, leaf_bytes in log.leaves():
            leaf = decode_leaf(leaf_bytes)
            if not selection.holds(index, leaf.event.ts_us):
                continue
            digest = leaf_hash(leaf_bytes)
            lines.write(leaf_bytes + b"\n")
            facts = facts_text(leaf_bytes)
            rows.write(csv_row(leaf, facts, digest))
            typed.write(typed_row(leaf, facts, digest))
            tally.count(leaf)
            drawing.offer(index, leaf.event.kind)
    return WrittenRecords(tally, drawing.drawn())
