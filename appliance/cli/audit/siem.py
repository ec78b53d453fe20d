"""Check a SIEM's copy against the log of the state folder, with the appliance running or not."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.own_log import own_log
from appliance.cli.refusals import INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from audit.reader import AuditReader
from audit.report import printable
from audit.siem.copy_check import CopyReport, check_copy

SHOWN = 20


@exits_cleanly
def siem_check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Lines of JSON, CEF or OCSF, in any order.")],
    from_index: Annotated[
        int | None, typer.Option("--from", min=0, help="First entry that the copy must have; default: its own first.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check that a SIEM's copy has every entry of the log, unaltered; name what is missing."""
    with ExitStack() as opened:
        streams = []
        for file in files:
            if not file.is_file():
                leave(f"there is no file at {file}", WRONG_USAGE)
            streams.append((str(file), opened.enter_context(file.open("rb"))))
        reader = opened.enter_context(AuditReader(own_log()))
        report = check_copy(streams, reader, from_index=from_index)
    print(json.dumps({"ok": report.ok, **dataclasses.asdict(report)}) if as_json else copy_text(report))
    if not report.ok:
        leave("the copy is not the log", INTEGRITY)


def copy_text(report: CopyReport) -> str:
    """Give a verdict for a terminal."""
    lines = [f"{report.num_lines} lines, {report.num_matching} of them entries of the log"]
    if report.num_repeated:
        lines[0] += f", {report.num_repeated} sent again"
    if report.num_pruned:
        lines.append(f"  note: {report.num_pruned} lines are of entries that the log gave up since, unchecked")
    if report.last_index is not None:
        lines.append(f"from entry {report.from_index} to entry {report.last_index}")
    lines += [f"  {fault.file}, line {fault.line}: {fault.what}" for fault in report.faults[:SHOWN]]
    lines += [f"  missing: {_range_text(*gap)}" for gap in report.gaps[:SHOWN]]
    hidden = [*report.faults[SHOWN:], *report.gaps[SHOWN:]]
    num_hidden = len(hidden) + report.faults_left_out + report.gaps_left_out
    if num_hidden:
        lines.append(f"  and {num_hidden} more")
    if report.num_behind:
        lines.append(f"  note: the log has {report.num_behind} newer entries: not sent yet, or cut off here")
    lines.append(
        "WHOLE: no entry between the two is missing or altered"
        if report.ok
        else f"NOT WHOLE: {report.num_missing} entries missing, {len(report.faults) + report.faults_left_out} bad lines"
    )
    return "\n".join(map(printable, lines))


def _range_text(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last} ({last - first + 1})"
