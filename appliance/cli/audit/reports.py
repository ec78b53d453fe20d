"""Run a saved report through the running appliance, and check the file of one with the log's public key alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.audit.evidence_files import read_vkey
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.reports.registry import REPORTS
from appliance.reports.report_file import CheckedReport, check_report
from appliance.reports.text import report_text
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from audit.errors import ProofRefused

app = typer.Typer(help="Saved reports R1-R13.", no_args_is_help=True)
MAX_REPORT_BYTES = 256 * 2**20
PATIENCE_S = 3_600.0
"""A report reads as much of the log as there is."""
From = Annotated[str | None, typer.Option("--from", help="From the beginning of this: 2026-11, 2026-11-01, ...")]
To = Annotated[str | None, typer.Option("--to", help="To the end of this; by default until now.")]
Vkey = Annotated[Path | None, typer.Option("--vkey", help="The log's public key, kept by you.")]


@app.command("list")
@exits_cleanly
def list_reports() -> None:
    """List the reports."""
    for spec in REPORTS.values():
        takes = f" (takes {', '.join(spec.takes)})" if spec.takes else ""
        print(f"{spec.id:<4} v{spec.version}  {spec.title:<22} {spec.answers}{takes}")


@app.command("run")
@exits_cleanly
def run(
    report: Annotated[str, typer.Argument(metavar="ID", help="R1 to R13.")],
    from_: From = None,
    to: To = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the report with its evidence to this file.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="R9: the request's id.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="R12: draws the sample.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, max=1000, help="R12: how many records.")] = None,
    vkey: Vkey = None,
    *,
    as_json: Json = False,
) -> None:
    """Run a report: recorded before and after, checked here with the log's public key, shown, and kept by --out."""
    client = ApplianceClient("auditor", read_timeout_s=PATIENCE_S)
    asked = {"from": from_, "to": to, "subject": subject, "seed": seed, "sample": sample}
    body = {name: value for name, value in asked.items() if value is not None}
    content = client.post(f"/audit/reports/{report}", body).content
    checked = check_report(content, [read_vkey(vkey or client.layout.log_vkey)])
    if out is not None:
        with out.open("xb") as file:
            file.write(content)
    _show(checked, as_json=as_json)
    if out is not None:
        print(f"written to {out}; check it by: cloister audit report check {out} --vkey KEY")


@app.command("check")
@exits_cleanly
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `report run --out` wrote.")],
    vkey: Vkey = None,
    *,
    as_json: Json = False,
) -> None:
    """Check a report's file with the log's public key alone, and show it; nothing is asked of anybody."""
    key_file = vkey or StateLayout(read_settings().state_dir.resolve()).log_vkey
    checked = check_report(_read(file), [read_vkey(key_file)])
    _show(checked, as_json=as_json)
    if vkey is None:
        print(f"note: the key came from {key_file}; an auditor uses a copy that came another way (--vkey)")


@exits_cleanly
def review(
    from_: Annotated[str, typer.Option("--from", help="From the beginning of this.")],
    to: Annotated[str, typer.Option("--to", help="To the end of this.")],
    notes: Annotated[Path, typer.Option("--notes", help="Your notes, a text file; their digest is recorded.")],
    examined: Annotated[
        list[int] | None, typer.Option("--examined", min=0, help="Index of a report's result; may be given again.")
    ] = None,
    *,
    findings: Annotated[bool, typer.Option("--findings/--no-findings", help="What came of it.")],
    keep_notes: Annotated[bool, typer.Option("--keep-notes", help="Record the notes themselves, for good.")] = False,
) -> None:
    """Sign off that you examined a stretch of time."""
    body: dict[str, Any] = {
        "from": from_,
        "to": to,
        "notes": _read(notes).decode(),
        "outcome": "findings" if findings else "no_findings",
        "keep_notes": keep_notes,
        "examined": examined or [],
    }
    signed = ApplianceClient("auditor").post("/audit/reviews", body).json()
    if signed["notes_sha256"] != hashlib.sha256(body["notes"].encode()).hexdigest():
        raise ProofRefused("the digest that was recorded is not that of the notes")
    print(f"entry {signed['index']}: reviewed {from_} to {to}, {signed['outcome'].replace('_', ' ')}")
    print(f"sha256 of your notes: {signed['notes_sha256']}; keep {notes}")


def _show(checked: CheckedReport, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(checked.document, indent=2, ensure_ascii=False))
        return
    print(report_text(checked.document))
    print(
        f"PROVEN: run at entry {checked.run.index} by {checked.run.event.actor}, result at entry {checked.made.index}, "
        f"in the tree of {checked.head.size} entries signed by {checked.head.origin}"
    )


def _read(path: Path) -> bytes:
    if not path.is_file():
        leave(f"there is no file at {path}", WRONG_USAGE)
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ProofRefused(f"{path}: longer than any report")
    return path.read_bytes()
