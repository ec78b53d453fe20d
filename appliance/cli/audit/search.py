"""Search and count the log through the running appliance: each question is recorded before a row is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.audit.entries import entry_line
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly
from audit.report import printable

PAGE_LEN = 1_000
PATIENCE_S = 3_600.0
"""A count reads every entry that it counts."""
Filter = Annotated[
    str, typer.Argument(metavar="FILTER", help="As in: kind=request:denied and time>=2026-11-01; see docs/reports.md.")
]


@exits_cleanly
def search(
    filter_: Filter,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many entries.")] = 100,
    *,
    newest: Annotated[bool, typer.Option("--newest", help="Newest first.")] = False,
    as_json: Json = False,
) -> None:
    """Show the entries that a filter means, in the order of the log."""
    client = ApplianceClient("auditor")
    order = "desc" if newest else "asc"
    after: dict[str, int] = {}
    while limit > 0:
        page = client.get("/audit/entries", filter=filter_, limit=min(limit, PAGE_LEN), order=order, **after).json()
        for row in page["data"]:
            print(json.dumps(row["entry"]) if as_json else entry_line(row["entry"]))
        limit -= len(page["data"])
        if not page["has_more"]:
            return
        after = {"after": page["next_after"]}


@exits_cleanly
def count(
    filter_: Annotated[str, typer.Argument(metavar="[FILTER]", help="Which entries; by default all.")] = "",
    by: Annotated[str, typer.Option("--by", help="One or two fields, and day or hour, with commas between.")] = "kind",
    *,
    as_json: Json = False,
) -> None:
    """Count entries, and add up the tokens and latencies of the requests among them that ended."""
    client = ApplianceClient("auditor", read_timeout_s=PATIENCE_S)
    found = client.get("/audit/aggregates", filter=filter_, by=by).json()
    print(json.dumps(found, indent=2) if as_json else _table(found))


def _table(found: Mapping[str, Any]) -> str:
    head = (*found["by"], "count", "prompt", "completion", "total ms p50", "p95", "p99")
    lines = [head, *(_line(group) for group in found["groups"])]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    num_keys = len(found["by"])
    shown = [
        "  ".join(
            cell.ljust(width) if place < num_keys else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(map(printable, [*shown, f"{found['num_entries']} entries of {found['size']}"]))


def _line(group: Mapping[str, Any]) -> tuple[str, ...]:
    total = group["quantiles"].get("total_ms")
    rounded = "~" if total and total["digits"] else ""
    spread = [f"{rounded}{total[name]}" if total else "" for name in ("p50", "p95", "p99")]
    tokens = [str(group["totals"].get(name, "")) for name in ("prompt_tokens", "completion_tokens")]
    keys = ["-" if value is None else value for value in group["key"].values()]
    return (*keys, str(group["count"]), *tokens, *spread)
