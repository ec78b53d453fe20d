"""A report for a terminal: figures first, then lists, then what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audit.report import printable

SHOWN_ROWS = 20
_WIDEST = 44


def report_text(document: Mapping[str, Any]) -> str:
    """Give the document as text; what is left out says so, and where it is."""
    query, log, result = document["query"], document["log"], document["result"]
    lines = [
        f"{query['report']} {document['title']}, version {query['report_version']}",
        f"  {query['from']} until {query['until']}, {log['origin']}, {log['size']} entries",
        *(f"  {name}: {value}" for name, value in query["parameters"].items() if value is not None),
        *_figures(result),
        *_lists(result),
        *_findings(result["findings"]),
    ]
    return "\n".join(map(printable, lines))


def _figures(result: Mapping[str, Any]) -> Iterator[str]:
    for name, value in result.items():
        match value:
            case dict() if value:
                yield f"  {_words(name)}: " + ", ".join(f"{key or 'none'} {count}" for key, count in value.items())
            case dict():
                yield f"  {_words(name)}: none"
            case list() | tuple():
                continue
            case _:
                yield f"  {_words(name)}: {str(value).strip()}".replace("\n", " / ")


def _lists(result: Mapping[str, Any]) -> Iterator[str]:
    for name, value in result.items():
        if name == "findings" or not isinstance(value, (list, tuple)):
            continue
        yield f"  {_words(name)}: {len(value)}"
        if value and isinstance(value[0], dict):
            yield from _table(value[:SHOWN_ROWS])
        else:
            yield from (f"    {item}" for item in value[:SHOWN_ROWS])
        if len(value) > SHOWN_ROWS:
            yield f"    and {len(value) - SHOWN_ROWS} more in the file"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[place]) for line in cells)) for place, name in enumerate(names)]
    for line in ([_words(name) for name in names], *cells):
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = " ".join(f"{name}={item}" for name, item in value.items() if item not in (None, ""))
    text = "" if value is None else str(value).replace("\n", " / ")
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _findings(findings: list[str]) -> Iterator[str]:
    if not findings:
        yield "  FINDINGS: none"
        return
    yield f"  FINDINGS: {len(findings)}"
    yield from (f"    {finding}" for finding in findings)


def _words(name: str) -> str:
    return name.replace("_", " ")
