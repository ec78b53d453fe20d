"""Search the log through the running appliance: the query is recorded before a row is read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.audit.entries import entry_line
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly

PAGE_LEN = 1_000
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
