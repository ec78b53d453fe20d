"""What a tamper lane tried and what was found, one line per kind of change, collected over processes.

    python tests/support/tamper_table.py FILE

`note` appends a row to the file that `CLOISTER_TAMPER_TABLE` names, if it names one; run as a program it prints the
file's rows as a table and ends with 1 unless everything that could be done was found.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TamperRow:
    """One kind of change."""

    what: str
    found_by: str
    """Which verifier, and against what."""
    num_done: int
    num_refused: int
    """The database itself did not take it: a second row of one key."""
    num_found: int


def note(row: TamperRow) -> None:
    """Remember a row for the table."""
    path = os.environ.get("CLOISTER_TAMPER_TABLE")
    if path:
        with Path(path).open("a") as table:
            table.write(json.dumps(asdict(row)) + "\n")


def table_of(rows: list[TamperRow]) -> str:
    """Give the rows as Markdown, those of one kind added up."""
    sums: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        counts = sums.setdefault((row.what, row.found_by), [0, 0, 0])
        counts[:] = [
            one + other for one, other in zip(counts, (row.num_done, row.num_refused, row.num_found), strict=True)
        ]
    lines = ["| change | found by | done | refused by the database | found |", "|---|---|---|---|---|"]
    for (what, found_by), (done, refused, found) in sorted(sums.items()):
        lines.append(f"| {what} | {found_by} | {done:,} | {refused:,} | {found / done:.2%} |")
    total, found = sum(c[0] for c in sums.values()), sum(c[2] for c in sums.values())
    lines.append(f"| all | | {total:,} | {sum(c[1] for c in sums.values()):,} | {found / total:.4%} |")
    return "\n".join(lines)


def main(path: Path) -> int:
    """Print the table of a file."""
    rows = [TamperRow(**json.loads(line)) for line in path.read_text().splitlines()]
    print(table_of(rows))
    return 0 if rows and all(row.num_found == row.num_done for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
