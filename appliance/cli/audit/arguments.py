"""Arguments that several verbs of `cloister audit` take."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Index = Annotated[int, typer.Argument(metavar="INDEX", min=0, help="Index of the entry.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the log for good.")]
Proposal = Annotated[int, typer.Argument(metavar="PROPOSAL", min=0, help="The number that proposing it gave.")]
