"""`cloister audit`: one file per duty; this one only names the verbs."""

from __future__ import annotations

import typer

from appliance.cli.audit import (
    content,
    controls,
    entries,
    erasures,
    evidence,
    files,
    holds,
    postgresql,
    proofs,
    prunings,
    reconciliation,
    replay,
    reports,
    retention,
    rotation,
    search,
    siem,
    status,
    witness,
)

app = typer.Typer(help="Read, prove, export and verify the log.", no_args_is_help=True)
for verb in (
    entries.tail,
    entries.show,
    search.search,
    proofs.prove,
    proofs.check_receipt,
    files.export,
    files.verify,
    replay.replay,
    reconciliation.reconcile,
    siem.siem_check,
    status.status,
    evidence.evidence,
    postgresql.move_to_postgresql,
):
    app.command()(verb)
app.command("erase")(erasures.erase)
app.command("check-certificate")(erasures.check_certificate_file)
app.command("count")(search.count)
app.command("review")(reports.review)
app.command("controls")(controls.controls)
app.add_typer(reports.app, name="report")
app.command("check-content")(content.check_content)
app.add_typer(holds.app, name="hold")
app.add_typer(content.app, name="unseal")
app.add_typer(retention.app, name="retention")
app.add_typer(prunings.app, name="prune")
app.add_typer(rotation.app, name="rotate-key")
app.add_typer(witness.app, name="witness")
