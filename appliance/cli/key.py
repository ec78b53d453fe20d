"""`cloister key`: the operator's view of API keys, through the running appliance, so that each act is recorded."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appliance.cli.client import ApplianceClient
from appliance.cli.refusals import exits_cleanly

app = typer.Typer(help="List and revoke API keys.", no_args_is_help=True)


@app.command("list")
@exits_cleanly
def list_keys(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every key without its secret."""
    rows = ApplianceClient("operator").get("/keys").json()["data"]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "revoked" if row["revoked_at"] else f"until {row['expires_at']}"
        print(f"{row['id']}  {row['owner']:<16} {','.join(row['roles']):<20} {state}")


@app.command()
@exits_cleanly
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="Public id, from `cloister key list`.")]) -> None:
    """Refuse a key from the next request on."""
    answer = ApplianceClient("operator").post(f"/keys/{key_id}/revoke").json()
    print(f"revoked {answer['id']} at {answer['revoked_at']}")
