"""The command's way in, light enough to be there at once: Ctrl-C during the imports that follow ends in silence.

Once a command runs, it answers signals itself.

Never: holds an option or a command; those are in `appliance.cli.main`.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""As shells count an end by SIGINT."""


def main() -> None:
    """Import the command and run it."""
    try:
        from appliance.cli.main import app  # noqa: PLC0415 - a second of imports, which Ctrl-C may interrupt

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
