"""`cloister demo`: a newcomer's tour in under a minute, every step of it real.

Ask, receipt, record, proof, denial, export, verification; then one flipped bit in the copy, and the place is named.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import httpx
import typer

from appliance.audit_trail import PAIRING
from appliance.cli.audit.evidence_files import read_vkey
from appliance.cli.audit.files import report_text
from appliance.cli.client import ApplianceClient, ClientRefused
from appliance.cli.own_log import own_log
from appliance.cli.refusals import exits_cleanly, leave
from appliance.cli.sample import ASKING, NOTE, QUESTION
from audit.checkpoint import LogVerifier
from audit.export import export_log
from audit.proof import EntryProof
from audit.tiles import LOG_FOLDER, TILE_WIDTH, tiles_of
from audit.verify import verify_log

SHOWN_FACTS = (
    *("trust", "decision", "policy_ids", "model", "model_root", "route", "prompt_tokens", "commitments"),
    *("outcome", "completion_tokens", "finish_reasons", "admitted_index"),
)


@exits_cleanly
def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Keep the exported log in this new folder.")] = None,
) -> None:
    """Ask the model, prove its record, and see a flipped bit found."""
    _heading("1. Ask, as the developer")
    print(f"{NOTE}\n\n> {QUESTION}\n")
    receipt = _ask()
    index = int(receipt.split(":")[0])
    print(f"\nreceipt: {receipt}")

    _heading("2. The record, as the auditor")
    auditor = ApplianceClient("auditor")
    verifier = read_vkey(auditor.layout.log_vkey)
    leaf = _show_records(auditor, index)

    _heading("3. Prove that the record is in the log, with the public key alone")
    _prove(auditor, verifier, index, leaf)

    _heading("4. What policy does not allow is refused, and recorded too")
    _be_denied(auditor)

    with tempfile.TemporaryDirectory(prefix="cloister-demo-") as scratch:
        folder = keep or Path(scratch) / "log"
        _heading("5. Export the log and verify the copy from its bytes")
        export_log(own_log(), folder, verifier)
        _verify(folder, verifier, expect_sound=True)
        _heading("6. Flip one bit in the copy and verify again")
        _flip_one_bit(folder, index)
        _verify(folder, verifier, expect_sound=False)
    print("\nThat was the tour. Next: README.md, or cloister --help.")


def _ask() -> str:
    answer = ApplianceClient("developer").stream_chat({"model": _served(), **ASKING})
    receipt = ""
    for part in answer:
        if isinstance(part, httpx.Headers):
            receipt = part["x-cloister-receipt"]
        else:
            print(part, end="", flush=True)
    print()
    return receipt


def _served() -> str:
    name: str = ApplianceClient("developer").get("/v1/models").json()["data"][0]["id"]
    return name


def _show_records(auditor: ApplianceClient, index: int) -> bytes:
    row = auditor.get(f"/audit/entries/{index}").json()
    _print_entry(row["entry"])
    ends = auditor.get("/audit/entries", subject=row["entry"]["subject"], after=index).json()["data"]
    for end in ends:
        _print_entry(end["entry"])
    leaf: str = row["leaf"]
    return leaf.encode()


def _print_entry(entry: dict[str, object]) -> None:
    facts = entry["facts"]
    assert isinstance(facts, dict), f"facts are {type(facts)}"
    print(f"entry {entry['index']}: {entry['kind']} by {entry['actor']} ({entry['role']}), tenant {entry['tenant']}")
    for name in SHOWN_FACTS:
        if facts.get(name):
            print(f"    {name}: {json.dumps(facts[name])}")


def _prove(auditor: ApplianceClient, verifier: LogVerifier, index: int, leaf: bytes) -> None:
    text = auditor.get(f"/audit/entries/{index}/proof").text
    checkpoint = EntryProof.from_text(text).verify(leaf, [verifier])
    print(text)
    print(f"PROVEN: entry {index} is in the tree of {checkpoint.size} entries that {verifier.name} has signed")


def _be_denied(auditor: ApplianceClient) -> None:
    try:
        auditor.post("/v1/chat/completions", {"model": _served(), "messages": [{"role": "user", "content": "Hello"}]})
    except ClientRefused as refusal:
        print(f"the auditor asks the model: {refusal}")
    else:
        leave("policy allowed an auditor to infer; that must not be", 1)
    denied = auditor.get("/audit/entries", kind="request:denied", order="desc", limit=1).json()["data"][0]["entry"]
    print(f"entry {denied['index']}: {denied['kind']}, by {denied['facts']['policy_ids']}")


def _verify(folder: Path, verifier: LogVerifier, *, expect_sound: bool) -> None:
    report = verify_log(folder, [verifier], PAIRING)
    print(report_text(report))
    if report.ok is not expect_sound:
        leave("that is not what should have come out; please report it", 4)


def _flip_one_bit(folder: Path, index: int) -> None:
    size = int((folder / LOG_FOLDER / "checkpoint").read_text().splitlines()[1])
    bundle = next(tile for tile in tiles_of(size) if tile.level is None and tile.index == index // TILE_WIDTH)
    path = folder / LOG_FOLDER / bundle.path
    content = bytearray(path.read_bytes())
    position = content.index(f'"index":{index},'.encode()) - 8
    content[position] ^= 1
    path.write_bytes(content)
    print(f"flipped one bit of byte {position} in {bundle.path}, inside entry {index}\n")


def _heading(text: str) -> None:
    print(f"\n--- {text} " + "-" * max(0, 74 - len(text)) + "\n")
