"""Content beside and behind an entry: check a text against its commitment, unseal what was sealed, with two people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Index, Json, Proposal, Reason
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import INTEGRITY, WRONG_USAGE, exits_cleanly, leave
from audit.report import printable

PHASES = ("declared", "output", "prompt", "stop")
app = typer.Typer(help="Read sealed content: an auditor and a privacy officer together.", no_args_is_help=True)


@exits_cleanly
def check_content(
    index: Index,
    phase: Annotated[str, typer.Option("--phase", help="prompt, output, stop or declared.")],
    file: Annotated[Path, typer.Option("--file", help="The text, or the body of the request as it was sent.")],
) -> None:
    """Check whether a text is the one that an entry commits to; the check itself is recorded."""
    if phase not in PHASES:
        leave(f"--phase is one of {', '.join(PHASES)}", WRONG_USAGE)
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        leave(f"{file} is not text in UTF-8", WRONG_USAGE)
    body = {"phase": phase, "text": text}
    answer = ApplianceClient("auditor").post(f"/audit/entries/{index}/check", body).json()
    if not answer["matches"]:
        leave(f"this text is not the {phase} of entry {index}", INTEGRITY)
    print(f"MATCH: this text is the {phase} of entry {index} ({answer['form']})")


@app.command()
@exits_cleanly
def propose(index: Index, reason: Reason) -> None:
    """Propose to unseal the content beside an entry, as an auditor or as a privacy officer."""
    answer = ApplianceClient("auditor").post(f"/audit/entries/{index}/unseal", {"reason": reason}).json()
    print(f"proposal {answer['proposal']}: unseal {' and '.join(answer['phases'])} of entry {answer['index']}")
    print(f"the other of the two approves it by: cloister audit unseal approve {answer['proposal']}")


@app.command()
@exits_cleanly
def approve(proposal: Proposal) -> None:
    """Approve another person's proposal to unseal."""
    answer = ApplianceClient("privacy").post(f"/audit/unsealings/{proposal}/approve").json()
    print(f"approved: entry {answer['index']} may be shown once, within {answer['shown_within_s']} s,")
    print(f"to the person who proposed it, by: cloister audit unseal show {proposal}")


@app.command()
@exits_cleanly
def show(proposal: Proposal, *, as_json: Json = False) -> None:
    """Show the unsealed content, once, to the person who proposed it."""
    answer = ApplianceClient("auditor").post(f"/audit/unsealings/{proposal}/show").json()
    if as_json:
        print(json.dumps(answer))
        return
    for phase, content in answer["contents"].items():
        print(printable(f"{phase} of entry {answer['index']}: {content}"))
