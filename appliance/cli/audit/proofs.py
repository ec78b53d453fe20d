"""Prove an entry or a receipt; the log's public key alone decides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Index
from appliance.cli.audit.evidence_files import read_short, read_vkey
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.receipt_text import KeptReceipt, ReceiptMalformed
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from audit.errors import ProofRefused
from audit.proof import EntryProof


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
        text = read_short(proof).decode(errors="replace")
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
