"""Hold the log's requests and tokens against the engine's counters, through the running appliance."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import INTEGRITY, exits_cleanly, leave
from appliance.reconciliation import TOKENS, Verdict
from audit.report import printable

SHOWN = 10


@exits_cleanly
def reconcile(
    runs: Annotated[int, typer.Option("--runs", min=1, max=100, help="So many of the newest runs.")] = 1,
    *,
    as_json: Json = False,
) -> None:
    """Check that every admitted request has its one end, and that the log's tokens are the engine's."""
    found = ApplianceClient("auditor").get("/audit/reconciliation", runs=runs).json()
    print(json.dumps(found) if as_json else reconciliation_text(found))
    if found["verdict"] == Verdict.UNBALANCED:
        leave("the log and the engine do not agree", INTEGRITY)


def reconciliation_text(found: dict[str, Any]) -> str:
    """Give the account for a terminal."""
    lines = [line for run in found["runs"] for line in _run_lines(run)]
    return "\n".join(map(printable, [*lines, found["verdict"].upper()]))


def _run_lines(run: dict[str, Any]) -> list[str]:
    ends = ", ".join(f"{count} {kind}" for kind, count in run["ends"].items()) or "none ended"
    lines = [
        f"run {run['epoch']}, entries {run['first_index']} to {run['last_index']}: {run['verdict']}",
        f"  {run['num_admitted']} requests and {run['num_replays']} replays: {ends}; {run['num_open']} still running",
    ]
    if run["counted"] is None:
        lines.append("  the engine's counters of this run are not known: it was killed, or is of an older release")
    else:
        lines += [f"  {name}: {run['recorded'][name]} recorded, {run['counted'][name]} counted" for name in TOKENS]
        if any(run["late"].values()):
            late = ", ".join(f"{run['late'][name]} {name}" for name in TOKENS)
            lines.append(f"  beside these, for requests given up before: {late}")
    for one in run["discrepancies"][:SHOWN]:
        where = "" if one["index"] is None else f"entry {one['index']} ({one['subject']}): "
        lines.append(f"  WRONG: {where}{one['what']}")
    hidden = run["num_discrepancies"] - len(run["discrepancies"][:SHOWN])
    return [*lines, f"  and {hidden} more"] if hidden > 0 else lines
