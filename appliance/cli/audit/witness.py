"""Cosignatures without a network between the two machines: a file there, a file back."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from appliance.anchors.witnessing import make_cosigner, make_witness
from appliance.cli.audit.evidence_files import read_short, read_witness
from appliance.cli.own_log import own_log
from appliance.cli.refusals import INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from appliance.settings import read_settings
from appliance.state.files import make_folder
from appliance.state.layout import StateLayout
from appliance.state.log_keys import own_verifiers
from audit.anchoring.head import SignedHead
from audit.anchoring.kept import KeptNotes
from audit.anchoring.submission import MAX_SUBMISSION_BYTES, Submission
from audit.anchoring.witness import RefusalKind, WitnessRefused
from audit.checkpoint import open_checkpoint
from audit.cosignature import CosignatureVerifier, cosignatures_of
from audit.errors import ProofRefused
from audit.reader import AuditReader

app = typer.Typer(help="Be a witness of other logs, and have this one witnessed by files alone.", no_args_is_help=True)
WitnessKey = Annotated[Path, typer.Option("--witness", help="The witness's public key.")]


@app.command()
@exits_cleanly
def init(name: Annotated[str, typer.Argument(metavar="NAME", help="For example witness.plant.example/1.")]) -> None:
    """Make this appliance's cosigning key, once, and print its public half."""
    layout = StateLayout(read_settings().state_dir.resolve())
    print(make_cosigner(layout, name, secrets.token_bytes).vkey)


@app.command()
@exits_cleanly
def request(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file that does not exist yet.")],
    witness: WitnessKey,
    old_size: Annotated[
        int | None, typer.Option("--old-size", min=0, help="Of the head that it cosigned last; default: the kept one.")
    ] = None,
) -> None:
    """Write this log's newest head, with the proof that it extends the one that the witness cosigned last."""
    layout = StateLayout(read_settings().state_dir.resolve())
    if old_size is None:
        kept = _kept(layout, read_witness(witness)).newest(read_witness(witness))
        old_size = 0 if kept is None else kept.checkpoint.size
    with AuditReader(own_log()) as reader:
        head = reader.head()
        if old_size > head.checkpoint.size:
            leave(f"the witness cosigned {old_size} entries, this log has {head.checkpoint.size}", INTEGRITY)
        proof = reader.consistency(old_size, head.checkpoint.size)
    _write_new(out, Submission(old_size, proof, head.note).to_text())
    print(f"head of {head.checkpoint.size} entries, from {old_size}, in {out}; carry it to the witness")


@app.command()
@exits_cleanly
def cosign(
    submission: Annotated[Path, typer.Argument(metavar="REQUEST", help="What a log's `request` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file that does not exist yet.")],
) -> None:
    """Cosign another log's head, by the rules and the state of the route; the last line is the cosignature."""
    settings = read_settings()
    layout = StateLayout(settings.state_dir.resolve())
    text = read_short(submission, max_bytes=MAX_SUBMISSION_BYTES).decode(errors="replace")
    try:
        cosigned = make_witness(settings, layout, set()).add_checkpoint(text)
    except WitnessRefused as refusal:
        if refusal.kind is RefusalKind.OTHER_SIZE:
            leave(f"{refusal.what}: ask the log for a request with --old-size {refusal.size}", 1)
        leave(str(refusal), INTEGRITY)
    _write_new(out, cosigned.note)
    print(f"cosigned {cosigned.checkpoint.size} entries of {cosigned.checkpoint.origin}; carry {out} back to the log")


@app.command()
@exits_cleanly
def keep(
    note: Annotated[Path, typer.Argument(metavar="NOTE", help="What the witness's `cosign` wrote.")],
    witness: WitnessKey,
) -> None:
    """Check a cosigned head that came back, and keep it beside the log."""
    layout = StateLayout(read_settings().state_dir.resolve())
    verifier = read_witness(witness)
    text = read_short(note).decode(errors="replace")
    checkpoint = open_checkpoint(text, own_verifiers(layout))
    found = cosignatures_of(text, [verifier])
    if not found:
        raise ProofRefused(f"{note} is not cosigned by {verifier.name}")
    make_folder(layout.anchors)
    _kept(layout, verifier).keep(SignedHead(checkpoint, text), found[0])
    print(f"kept: {checkpoint.size} entries, cosigned by {verifier.name}")


def _kept(layout: StateLayout, witness: CosignatureVerifier) -> KeptNotes:
    configured = (CosignatureVerifier.from_vkey(one.vkey) for one in read_settings().anchor_witnesses)
    return KeptNotes(layout.anchors, list(dict.fromkeys((witness, *configured))))


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        leave(f"{path} exists", WRONG_USAGE)
