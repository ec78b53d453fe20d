"""Make an evidence pack: ask the appliance, build from files beside it, have the digest recorded, and seal."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.audit_trail import PAIRING
from appliance.cli.audit.evidence_files import read_vkey
from appliance.cli.client import ApplianceClient
from appliance.cli.own_log import own_log
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.pack_attachments import Attachments, collect_attachments
from audit.errors import LogExists
from audit.evidence.index import Selection
from audit.reader import AuditReader
from audit.verify import DEFAULT_CLOCK_LIMIT_US


@exits_cleanly
def evidence(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that does not exist yet.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="BOUND", help="First entry: an index, or a date or time in UTC.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="BOUND", help="Where to end, not itself in range: as --from.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", help="Of the sample; choose it yourself. Default: the root of the tree.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=0, max=10_000, help="How many entries the seed draws.")] = 25,
) -> None:
    """Make the pack that an auditor takes home: log, records, proofs, policies, summary, verifier; the log seals it."""
    if folder.exists():
        raise LogExists(folder)
    selection = selection_of(from_, to)
    client = ApplianceClient("auditor")
    order = {**dataclasses.asdict(selection), "seed": seed, "sample_size": sample}
    started = client.post("/audit/evidence", order).json()
    made = _make(client, folder, selection, order, started)
    print(f"{made.num_records} records, {made.num_files} files in {folder}; head of {made.head_size} entries")
    print(f"verify by: python3 {folder / 'verify.py'} {folder} --key {client.layout.log_vkey}")


def _make(
    client: ApplianceClient, folder: Path, selection: Selection, order: dict[str, Any], started: dict[str, Any]
) -> Any:  # noqa: ANN401 - a value of a room that is imported late
    from audit.evidence.build import (  # noqa: PLC0415 - PDF and columns need large libraries, other verbs do not
        PackOrder,
        Seal,
        drafting,
        seal_pack,
        write_pack,
    )

    layout = client.layout
    verifier = read_vkey(layout.log_vkey)
    attached = _attachments(client)
    pack_order = PackOrder(
        selection=selection,
        seed=order["seed"],
        sample_size=order["sample_size"],
        always=tuple(started["always"]),
        pairing=PAIRING,
        started_index=started["started_index"],
        maker=started["maker"],
        trust=started["trust"],
        clock_limit_us=DEFAULT_CLOCK_LIMIT_US,
        attachments=attached.files,
        absent=attached.absent,
    )
    with drafting(folder) as draft:
        made = write_pack(own_log(), draft, verifier, pack_order)
        answer = client.post(f"/audit/evidence/{started['id']}/made", dataclasses.asdict(made)).json()
        growth = tuple(bytes.fromhex(node) for node in answer["growth"])
        seal_pack(draft, Seal(answer["leaf"].encode(), answer["proof"], growth), [verifier])
    return made


def _attachments(client: ApplianceClient) -> Attachments:
    with AuditReader(own_log()) as reader:
        return collect_attachments(client.layout, reader)


def selection_of(start: str | None, end: str | None) -> Selection:
    """Read the bounds: two indexes, two times, or one of each kind."""
    bounds: dict[str, int] = {}
    for side, text in (("from", start), ("until", end)):
        if text is None:
            continue
        if re.fullmatch("[0-9]{1,15}", text):
            bounds[f"{side}_index"] = int(text)
        else:
            bounds[f"{side}_us"] = _microseconds(text)
    return Selection(**bounds)


def _microseconds(text: str) -> int:
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        leave(f"{text!r} is neither an index nor a time such as 2026-11-24 or 2026-11-24T12:00:00Z", WRONG_USAGE)
    at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
    since = at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    if since < dt.timedelta(0):
        leave(f"{text!r} is before 1970", WRONG_USAGE)
    return since // dt.timedelta(microseconds=1)
