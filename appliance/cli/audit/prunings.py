"""`cloister audit prune`: give up what is older than it must be kept, by two people, on a verified export."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.audit.arguments import Proposal, Reason
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly

app = typer.Typer(help="Prune entries or sealed contents below an index.", no_args_is_help=True)


@app.command()
@exits_cleanly
def propose(
    what: Annotated[str, typer.Option("--what", help="leaf (entries) or content (what is sealed beside them).")],
    below: Annotated[int, typer.Option("--below", min=1, help="All below this index goes.")],
    export: Annotated[str, typer.Option("--export", help="Name of the export's folder in CLOISTER_EXPORT_DIR.")],
    digest: Annotated[str, typer.Option("--digest", help="The digest that `cloister audit export` printed.")],
    reason: Reason,
) -> None:
    """Propose to prune, as the operator; a privacy officer approves."""
    body = {"what": what, "below": below, "export": export, "digest": digest, "reason": reason}
    answer = ApplianceClient("operator").post("/audit/prunings", body).json()
    print(f"proposal {answer['proposal']}: prune {answer['what']} below {answer['below']}")
    print(f"a privacy officer approves it by: cloister audit prune approve {answer['proposal']}")


@app.command()
@exits_cleanly
def approve(proposal: Proposal) -> None:
    """Approve another person's proposal to prune; with that it is done."""
    answer = ApplianceClient("privacy").post(f"/audit/prunings/{proposal}/approve").json()
    print(f"pruned: {answer['pruned']} below {answer['below']}; the signed tree still counts them")
