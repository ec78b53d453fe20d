"""`cloister audit hold`: place a legal hold, release it with a second person, list what is held."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Json, Proposal, Reason
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from audit.report import printable

app = typer.Typer(help="Keep what a court or an authority asks for.", no_args_is_help=True)
Hold = Annotated[int, typer.Argument(metavar="HOLD", min=0, help="A hold's number, from `cloister audit hold list`.")]


@app.command()
@exits_cleanly
def place(
    reason: Reason,
    subject: Annotated[str | None, typer.Option("--subject", help="A person, under any spelling.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="The person's tenant, or all of a tenant.")] = None,
    first: Annotated[int | None, typer.Option("--first", min=0, help="First entry of a range.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=0, help="Last entry of a range.")] = None,
) -> None:
    """Let nothing that concerns a person, a tenant or a range of entries be erased or pruned."""
    named = {"subject": subject, "tenant": tenant, "first": first, "last": last}
    body = {name: value for name, value in named.items() if value is not None}
    if not body:
        leave("name --subject, --tenant, or --first and --last", WRONG_USAGE)
    answer = ApplianceClient("privacy").post("/audit/holds", {**body, "reason": reason}).json()
    print(printable(f"hold {answer['hold']} on {answer['on']}"))
    if not answer["known"]:
        print("note: the log has no entry of exactly this yet; is it spelled as `actor` and `tenant` of an entry are?")


@app.command()
@exits_cleanly
def release(hold: Hold, reason: Reason) -> None:
    """Propose to release a hold; another person approves."""
    answer = ApplianceClient("privacy").post(f"/audit/holds/{hold}/release", {"reason": reason}).json()
    print(printable(f"proposal {answer['proposal']}: release hold {answer['hold']} on {answer['on']}"))
    print(f"another person approves it by: cloister audit hold approve {answer['proposal']}")


@app.command()
@exits_cleanly
def approve(proposal: Proposal) -> None:
    """Approve another person's proposal to release a hold."""
    answer = ApplianceClient("auditor").post(f"/audit/releases/{proposal}/approve").json()
    print(printable(f"released hold {answer['released']} on {answer['on']}"))


@app.command("list")
@exits_cleanly
def list_holds(*, as_json: Json = False) -> None:
    """List every living hold."""
    rows = ApplianceClient("privacy").get("/audit/holds").json()["data"]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(printable(f"{row['hold']:>7}  {row['placed_at']}  {row['placed_by']:<14} {row['on']}: {row['reason']}"))
