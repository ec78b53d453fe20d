"""`cloister audit retention`: the floor, the holds, what could go; and two people's word for a lower floor."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from appliance.cli.audit.arguments import Json, Proposal, Reason
from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly
from audit.report import printable

app = typer.Typer(help="How long entries and contents stay.", invoke_without_command=True)


@app.callback()
@exits_cleanly
def show(context: typer.Context, *, as_json: Json = False) -> None:
    """Show the floor of retention, what is held, and what could be pruned."""
    if context.invoked_subcommand is not None:
        return
    body = ApplianceClient("privacy").get("/audit/retention").json()
    print(json.dumps(body, indent=2) if as_json else _text(body))


@app.command()
@exits_cleanly
def propose(
    profile: Annotated[list[str], typer.Option("--profile", help="A profile of the new floor; may be given again.")],
    reason: Reason,
) -> None:
    """Propose the profiles of a lower floor, as the operator; a privacy officer approves."""
    body = {"profiles": profile, "reason": reason}
    answer = ApplianceClient("operator").post("/audit/retention/lower", body).json()
    print(
        f"proposal {answer['proposal']}: keep by {', '.join(answer['profiles'])} alone from the next start on, entries "
        f"{answer['leaf_days']} and contents {answer['content_days']} days"
    )
    print(f"a privacy officer approves it by: cloister audit retention approve {answer['proposal']}")


@app.command()
@exits_cleanly
def approve(proposal: Proposal) -> None:
    """Approve another person's proposal of a lower floor."""
    answer = ApplianceClient("privacy").post(f"/audit/retention/{proposal}/approve").json()
    names = json.dumps(answer["profiles"])
    print(
        f"approved: the next start may have CLOISTER_RETENTION_PROFILES='{names}', which keeps entries "
        f"{answer['leaf_days']} and contents {answer['content_days']} days"
    )


def _text(body: dict[str, Any]) -> str:
    floor = body["floor"]
    lines = [f"entries stay {floor['leaf_days']} days, sealed contents {floor['content_days']} days, at least"]
    lines += [f"  {profile['name']}: {profile['title']}; {profile['says']}" for profile in body["profiles"]]
    lines += [f"  hold {hold['hold']} on {hold['on']}: {hold['reason']}" for hold in body["holds"]]
    for what, name in (("leaf", "entries"), ("content", "contents")):
        clock = body[what]
        lines.append(
            f"{name}: of {body['log_size']}, all below {clock['pruned_below']} are gone, below "
            f"{clock['old_enough_below']} old enough, below {clock['prunable_below']} prunable with an export"
        )
    return "\n".join(map(printable, lines))
