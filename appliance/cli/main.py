"""The root of the command: one sub-command per noun, one place where refusals become exit codes.

Exit codes: 0 done, 1 could not be done, 2 wrong usage, 3 refused by policy, 4 an integrity check failed.
"""

from __future__ import annotations

import typer

from appliance.cli import audit, demo, key, serve

app = typer.Typer(
    name="cloister",
    help="A serving appliance for language models in networks that have no way out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command(name="serve")(serve.serve)
app.command(name="demo")(demo.demo)
app.add_typer(audit.app, name="audit")
app.add_typer(key.app, name="key")
