"""Move the state's log into PostgreSQL: an act of the operator, with the appliance stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.settings import read_settings
from appliance.state.files import flush_folder, write_private
from appliance.state.layout import StateLayout
from appliance.state.log_keys import own_verifiers
from appliance.state.opening import hold_state
from audit.location import LocationRefused, PostgresLog
from audit.provision import move_log


@exits_cleanly
def move_to_postgresql(
    owner: Annotated[str, typer.Option("--owner", help="URL of the empty database, as the role that owns it.")],
    writer: Annotated[str, typer.Option("--writer", help="Role that the appliance will append as.")],
    reader: Annotated[str, typer.Option("--reader", help="Role that the appliance will read as.")],
) -> None:
    """Copy the log of the state folder into an empty PostgreSQL database, prove it there, and keep it there."""
    layout = StateLayout(read_settings().state_dir.resolve())
    try:
        database = PostgresLog(owner)
    except LocationRefused as refusal:
        leave(f"--owner: {refusal}", WRONG_USAGE)
    with hold_state(layout):
        head = move_log(layout.audit_db, database, own_verifiers(layout), writer=writer, reader=reader)
        write_private(layout.log_moved_to, f"{database.database}\n".encode())
        layout.audit_db.rename(layout.audit_db.with_name("audit.db.moved"))
        flush_folder(layout.log)
    print(f"{head.size} entries are in {database.database}, root {head.root.hex()}")
    print("set CLOISTER_LOG_WRITER_URL and CLOISTER_LOG_READER_URL and start the appliance;")
    print(f"the file is kept as {layout.log / 'audit.db.moved'}")
