"""Show the control map: what a control asks for, which report answers, what proves it, where the log's word ends."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from appliance.cli.audit.arguments import Json
from appliance.cli.refusals import WRONG_USAGE, exits_cleanly, leave
from appliance.controls.control_map import PROOFS, Control, ControlMap, read_control_map
from appliance.reports.registry import REPORTS

WIDTH = 100


@exits_cleanly
def controls(
    control_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One control; by default the list.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Show which report and which proof answer a control."""
    found = read_control_map()
    if control_id is None:
        print(json.dumps(dataclasses.asdict(found), indent=2) if as_json else "\n".join(_list(found)))
        return
    control = found.find(control_id)
    if control is None:
        leave(f"there is no control {control_id}; `cloister audit controls` lists them", WRONG_USAGE)
    print(json.dumps(dataclasses.asdict(control), indent=2) if as_json else "\n".join(_one(control, found)))


def _list(found: ControlMap) -> Iterator[str]:
    yield f"control map, version {found.version}, as of {found.as_of}"
    yield from textwrap.wrap(found.reading, WIDTH)
    width = max(len(control.id) for control in found.controls)
    for control in found.controls:
        yield f"{control.id:<{width}}  {', '.join(control.reports):<20}  {control.framework}, {control.clause}"


def _one(control: Control, found: ControlMap) -> Iterator[str]:
    yield f"{control.id}: {control.framework}, {control.clause}"
    yield f"  source: {found.sources[control.source]}"
    yield from _paragraph("asks for", control.asks)
    for report in control.reports:
        yield f"  answered by {report} {REPORTS[report].title}: {REPORTS[report].answers}"
    if control.kinds:
        yield from _paragraph("rests on", ", ".join(control.kinds))
    for proof in control.proof:
        yield f"  proven by cloister audit {proof}: {PROOFS[proof]}"
    yield from _paragraph("limits", control.limits)


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")
