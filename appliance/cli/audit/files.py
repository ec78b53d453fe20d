"""Export and verify from files, with the appliance running or not, trusting nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.audit_trail import PAIRING
from appliance.cli.audit.arguments import Json
from appliance.cli.audit.copies import head_of_copy, held_against
from appliance.cli.audit.evidence_files import read_checkpoint, read_quorum, read_vkey
from appliance.cli.own_log import own_log
from appliance.cli.refusals import INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from appliance.keeping.pruning import export_digest
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from appliance.state.log_keys import own_verifiers
from audit.anchoring.evidence import read_anchors
from audit.export import export_log
from audit.location import LocationRefused, LogLocation, parse_location
from audit.report import Report, printable
from audit.tiles import VKEY_NAME
from audit.verify import verify_log

SHOWN_FINDINGS = 20


@exits_cleanly
def export(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that does not exist yet.")]) -> None:
    """Write the log of the state folder as C2SP tlog-tiles with its public key."""
    layout = StateLayout(read_settings().state_dir.resolve())
    verifier, *earlier = own_verifiers(layout)
    checkpoint = export_log(own_log(), folder, verifier, earlier=earlier, anchors=layout.anchors)
    print(f"{checkpoint.size} entries in {folder}; verify by: cloister audit verify {folder}")
    print(f"digest {export_digest(folder)}")


@exits_cleanly
def verify(
    log: Annotated[
        str | None, typer.Argument(metavar="[LOG]", help="An exported folder, a log file or a PostgreSQL log's URL.")
    ] = None,
    vkey: Annotated[
        list[Path] | None,
        typer.Option("--vkey", help="The log's public key, kept by you; again for each key that it had before."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="A checkpoint that you kept; may be given again.")
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option("--anchors", help="A folder, or a captured syslog, with heads of this log; may be given again."),
    ] = None,
    witness: Annotated[
        list[Path] | None, typer.Option("--witness", help="A witness's public key; may be given again.")
    ] = None,
    quorum: Annotated[
        int | None, typer.Option("--quorum", min=1, help="How many witnesses must have cosigned a head; default: all.")
    ] = None,
    other: Annotated[
        str | None, typer.Option("--other", help="Another copy of this log: names the first entry that differs.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check every leaf, node, head and request from bytes alone; name each place that is wrong."""
    layout = StateLayout(read_settings().state_dir.resolve())
    source = own_log() if log is None else _location(log)
    key_files = vkey or [source / VKEY_NAME if isinstance(source, Path) and source.is_dir() else layout.log_vkey]
    is_own = vkey is None and key_files == [layout.log_vkey] and layout.log_vkey.is_file()
    verifiers = own_verifiers(layout) if is_own else [read_vkey(file) for file in key_files]
    known_notes = [read_checkpoint(file, verifiers) for file in checkpoint or ()]
    places = [read_anchors(place, verifiers) for place in anchors or ()]
    copy = None if other is None else _location(other)
    known = [*(anchor for place in places for anchor in place.anchors), *head_of_copy(copy, verifiers)]
    asked = read_quorum(witness or (), quorum)
    report = verify_log(source, verifiers, PAIRING, known_notes=known_notes, anchors=known, quorum=asked)
    report = replace(report, notes=(*report.notes, *(note for place in places for note in place.notes)))
    if copy is not None:
        report = held_against(report, source, copy)
    if vkey is None:
        whose = f"the key came from {key_files[0]}; an auditor uses a copy that came another way (--vkey)"
        report = replace(report, notes=(*report.notes, whose))
    print(json.dumps(_report_json(report), indent=2) if as_json else report_text(report))
    if not report.ok:
        leave("the log does not verify", INTEGRITY)


def _location(text: str) -> LogLocation:
    try:
        return parse_location(text)
    except LocationRefused as refusal:
        leave(str(refusal), WRONG_USAGE)


def report_text(report: Report) -> str:
    """Give a verdict for a terminal."""
    lines = [
        f"{report.source}: {report.num_leaves} entries, signed head of {report.head_size}, root {report.head_root}"
    ]
    lines += [f"  {finding}" for finding in report.findings[:SHOWN_FINDINGS]]
    hidden = len(report.findings) - SHOWN_FINDINGS + report.findings_left_out
    if hidden > 0:
        lines.append(f"  and {hidden} more")
    lines += [f"  still running, or abandoned by a crash: {subject} ({i})" for subject, i in report.unfinished[:5]]
    lines += [f"  note: {note}" for note in report.notes]
    lines.append("VERIFIED: nothing contradicts anything" if report.ok else "NOT VERIFIED")
    return "\n".join(map(printable, lines))


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "source": report.source,
        "verified": report.ok,
        "num_leaves": report.num_leaves,
        "head_size": report.head_size,
        "head_root": report.head_root,
        "findings": [
            {"place": found.place.value, "index": found.index, "where": found.where, "what": found.what}
            for found in report.findings
        ],
        "findings_left_out": report.findings_left_out,
        "unfinished": [{"subject": subject, "index": index} for subject, index in report.unfinished],
        "notes": list(report.notes),
    }
