"""`cloister audit`: read through the running appliance, recorded; export and verify from files, trusting nothing."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.audit_trail import PAIRING
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from appliance.receipt_text import KeptReceipt, ReceiptMalformed
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from audit.checkpoint import LogVerifier
from audit.errors import KeyRefused, ProofRefused
from audit.export import export_log
from audit.proof import EntryProof
from audit.report import Report, printable
from audit.tiles import VKEY_NAME
from audit.verify import verify_log

app = typer.Typer(help="Read, prove, export and verify the log.", no_args_is_help=True)
SHOWN_FINDINGS = 20
MAX_EVIDENCE_BYTES = 2**16

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Index = Annotated[int, typer.Argument(metavar="INDEX", min=0, help="Index of the entry.")]


@app.command()
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


@app.command()
@exits_cleanly
def show(index: Index, *, as_json: Json = False) -> None:
    """Show one entry, decoded."""
    row = ApplianceClient("auditor").get(f"/audit/entries/{index}").json()
    print(json.dumps(row) if as_json else json.dumps(row["entry"], indent=2, sort_keys=True))


@app.command()
@exits_cleanly
def prove(
    index: Index,
    out: Annotated[Path | None, typer.Option("--out", help="Write the proof to this file.")] = None,
    vkey: Annotated[
        Path | None, typer.Option("--vkey", help="The log's public key; default: the state folder's.")
    ] = None,
) -> None:
    """Fetch one entry's inclusion proof and check it here, with the log's public key alone."""
    client = ApplianceClient("auditor")
    verifier = read_vkey(vkey or client.layout.log_vkey)
    leaf_bytes = client.get(f"/audit/entries/{index}").json()["leaf"].encode()
    text = client.get(f"/audit/entries/{index}/proof").text
    checkpoint = EntryProof.from_text(text).verify(leaf_bytes, [verifier])
    if out is not None:
        out.write_text(text)
    print(f"entry {index} is in the tree of {checkpoint.size} entries signed by {verifier.name}")
    print(f"root {checkpoint.root.hex()}" + (f"; proof written to {out}" if out else ""))


@app.command()
@exits_cleanly
def check_receipt(
    receipt: Annotated[str, typer.Argument(metavar="RECEIPT", help="Value of an answer's x-cloister-receipt.")],
    proof: Annotated[
        Path | None, typer.Option("--proof", help="A proof fetched earlier; nothing is asked of the appliance then.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the fetched proof in this file.")] = None,
    vkey: Annotated[
        Path | None, typer.Option("--vkey", help="The log's public key; default: the state folder's.")
    ] = None,
) -> None:
    """Check that a request of yours is in the log, with its receipt and the log's public key alone."""
    try:
        kept = KeptReceipt.from_text(receipt)
    except ReceiptMalformed as malformed:
        leave(str(malformed), WRONG_USAGE)
    verifier = read_vkey(vkey or StateLayout(read_settings().state_dir.resolve()).log_vkey)
    if proof is not None:
        text = _read_short(proof).decode(errors="replace")
    else:
        text = ApplianceClient("developer").get(f"/audit/receipts/{receipt}/proof").text
    found = EntryProof.from_text(text)
    if found.index != kept.index:
        raise ProofRefused(f"this proof is of entry {found.index}, the receipt of entry {kept.index}")
    checkpoint = found.verify_hash(kept.leaf_hash, [verifier])
    if out is not None:
        out.write_text(text)
    print(f"the request of entry {kept.index} is in the tree of {checkpoint.size} entries signed by {verifier.name}")
    print(f"root {checkpoint.root.hex()}" + (f"; proof written to {out}" if out else ""))


@app.command()
@exits_cleanly
def export(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that does not exist yet.")]) -> None:
    """Write the log of the state folder as C2SP tlog-tiles with its public key."""
    layout = StateLayout(read_settings().state_dir.resolve())
    checkpoint = export_log(layout.audit_db, folder, read_vkey(layout.log_vkey))
    print(f"{checkpoint.size} entries in {folder}; verify by: cloister audit verify {folder}")


@app.command()
@exits_cleanly
def verify(
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", help="An exported folder or a log file.")] = None,
    vkey: Annotated[Path | None, typer.Option("--vkey", help="The log's public key, kept by you.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="A checkpoint that you kept; may be given again.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Check every leaf, node, head and request from bytes alone; name each place that is wrong."""
    layout = StateLayout(read_settings().state_dir.resolve())
    source = path or layout.audit_db
    key_file = vkey or (source / VKEY_NAME if source.is_dir() else layout.log_vkey)
    verifier = read_vkey(key_file)
    known_notes = [_read_checkpoint(file, verifier) for file in checkpoint or ()]
    report = verify_log(source, [verifier], PAIRING, known_notes=known_notes)
    if vkey is None:
        whose = f"the key came from {key_file}; an auditor uses a copy that came another way (--vkey)"
        report = replace(report, notes=(*report.notes, whose))
    print(json.dumps(_report_json(report), indent=2) if as_json else report_text(report))
    if not report.ok:
        leave("the log does not verify", INTEGRITY)


def read_vkey(path: Path) -> LogVerifier:
    """Read a log's public key in vkey form."""
    if not path.is_file():
        leave(f"there is no public key at {path}; name one by --vkey", 2)
    try:
        return LogVerifier.from_vkey(_read_short(path).decode().strip())
    except UnicodeDecodeError as error:
        raise KeyRefused(f"{path}: a verifier key is text") from error
    except KeyRefused as error:
        raise KeyRefused(f"{path}: {error.what}", hint=error.hint) from error


def _read_checkpoint(path: Path, verifier: LogVerifier) -> str:
    """Read a checkpoint that the auditor kept, and refuse by its name one that is not this log's."""
    try:
        note = _read_short(path).decode()
        verifier.open(note)
    except UnicodeDecodeError as error:
        raise ProofRefused(f"{path}: a checkpoint is text") from error
    except ProofRefused as error:
        raise ProofRefused(f"{path}: {error.what}", hint=error.hint) from error
    return note


def _read_short(path: Path) -> bytes:
    """Read a key, a checkpoint or a proof: a file, and a short one; nobody waits for a pipe or a device without end."""
    if not path.is_file():
        leave(f"there is no file at {path}", WRONG_USAGE)
    with path.open("rb") as file:
        content = file.read(MAX_EVIDENCE_BYTES + 1)
    if len(content) > MAX_EVIDENCE_BYTES:
        raise ProofRefused(f"{path}: longer than any key, checkpoint or proof")
    return content


def entry_line(entry: dict[str, Any]) -> str:
    """Give one entry as one line for a terminal."""
    at = dt.datetime.fromtimestamp(entry["ts_us"] / 1e6, tz=dt.UTC).isoformat(timespec="milliseconds")
    facts = entry["facts"]
    about = " ".join(f"{name}={facts[name]}" for name in ("route", "outcome", "code", "reason") if facts.get(name))
    who = f"{entry['kind']:<20} {entry['actor']:<14} {entry['subject'][:44]:<44}"
    return printable(f"{entry['index']:>7}  {at}  {who} {about}")


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
