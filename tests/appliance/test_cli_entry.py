"""The command before it is a command."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED_IMPORT = """
import sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "appliance.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from appliance.cli.entry import main
main()
"""


def test_ctrl_c_while_the_command_is_imported_ends_in_silence() -> None:
    """The exit code that shells know, and no traceback."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
