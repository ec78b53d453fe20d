"""Give the log a new signing key: two acts on the state folder of an appliance that is stopped."""

from __future__ import annotations

import secrets

import typer

from appliance.cli.own_log import own_log
from appliance.cli.refusals import DONE_NOT, exits_cleanly, leave
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from appliance.state.log_keys import begin_rotation, end_rotation, open_log_keys
from appliance.state.opening import hold_state
from audit.checkpoint import open_checkpoint
from audit.errors import ProofRefused
from audit.reader import AuditReader

app = typer.Typer(help="Give the log a new signing key, with the appliance stopped.", no_args_is_help=True)


@app.command()
@exits_cleanly
def begin() -> None:
    """Make a new key; from the next start on both keys sign every head."""
    layout = StateLayout(read_settings().state_dir.resolve())
    with hold_state(layout):
        new, old = begin_rotation(layout, secrets.token_bytes)
    print(f"new {new.vkey}\nold {old.vkey}")
    print("start the appliance: it records the rotation and signs with both keys; give the new public key to everybody")
    print("who has the old one, auditors and witnesses, and then: cloister audit rotate-key end")


@app.command()
@exits_cleanly
def end() -> None:
    """Destroy the old key once the log's head carries the new key's signature; its public half is kept."""
    layout = StateLayout(read_settings().state_dir.resolve())
    with hold_state(layout):
        keys = open_log_keys(layout)
        with AuditReader(own_log()) as reader:
            note = reader.head().note
        try:
            open_checkpoint(note, [keys.signer.verifier])
        except ProofRefused:
            leave("the log's head is not signed with the new key yet: start the appliance once", DONE_NOT)
        new, old = end_rotation(layout)
    print(f"key {new.vkey}\nearlier {old.vkey}")
    print("keep the earlier public key: it alone verifies what was signed before the rotation")
