"""Read the log through the running appliance: each read is recorded before a row is read."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated, Any

import typer

from appliance.cli.audit.arguments import Index, Json
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly
from audit.report import printable


@exits_cleanly
def tail(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many entries.")] = 20,
    *,
    as_json: Json = False,
) -> None:
    """Show the newest entries, oldest of them first."""
    rows = ApplianceClient("auditor").get("/audit/entries", limit=count, order="desc").json()["data"]
    for row in reversed(rows):
        print(json.dumps(row["entry"]) if as_json else entry_line(row["entry"]))


@exits_cleanly
def show(index: Index, *, as_json: Json = False) -> None:
    """Show one entry, decoded."""
    row = ApplianceClient("auditor").get(f"/audit/entries/{index}").json()
    print(json.dumps(row) if as_json else json.dumps(row["entry"], indent=2, sort_keys=True))


def entry_line(entry: dict[str, Any]) -> str:
    """Give one entry as one line for a terminal."""
    at = dt.datetime.fromtimestamp(entry["ts_us"] / 1e6, tz=dt.UTC).isoformat(timespec="milliseconds")
    facts = entry["facts"]
    about = " ".join(f"{name}={facts[name]}" for name in ("route", "outcome", "code", "reason") if facts.get(name))
    who = f"{entry['kind']:<20} {entry['actor']:<14} {entry['subject'][:44]:<44}"
    return printable(f"{entry['index']:>7}  {at}  {who} {about}")
