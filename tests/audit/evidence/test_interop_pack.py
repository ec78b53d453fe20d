"""The commands of a pack's README.txt, run by a program that nobody here wrote (`make interop-log`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

FOREIGN = os.environ.get("CLOISTER_TLOG_PYTHON", "")


@pytest.mark.skipif(not FOREIGN, reason="no foreign log verifiers (make interop installs them)")
def test_the_commands_of_the_readme_pass_and_find_a_flipped_bit(pack: Path, honest: Path) -> None:
    """aics-tlog on the log of a pack: the page's own words, with the two paths put in."""
    text = (pack / "README.txt").read_text()
    commands = re.findall(r"^ {4}tlog/bin/(aics-tlog .*)$", text, re.MULTILINE)
    assert len(commands) == 2
    arguments = [command.replace("/path/to", str(honest)).split() for command in commands]
    for line in arguments:
        said = run(pack, line)
        assert said.returncode == 0, said.stdout + said.stderr
        assert json.loads(said.stdout)["ok"] is True
    bundle = pack / "tlog" / "tile" / "entries" / "000"
    content = bytearray(bundle.read_bytes())
    content[100] ^= 1
    bundle.write_bytes(bytes(content))
    assert run(pack, arguments[1]).returncode != 0


def run(pack: Path, line: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one command from inside the pack."""
    program = Path(FOREIGN).with_name(line[0])
    return subprocess.run([program, *line[1:]], cwd=pack, capture_output=True, text=True, check=False)


def test_the_readme_names_every_file_of_the_pack(pack: Path) -> None:
    """Or its folder, or its kind."""
    text = (pack / "README.txt").read_text()
    for path in pack.rglob("*"):
        name = path.relative_to(pack).as_posix()
        if path.is_file() and name != "README.txt" and not name.startswith(("tlog/", "proofs/")):
            assert name in text, name
