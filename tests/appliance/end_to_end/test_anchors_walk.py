"""docs/anchors.md and docs/audit.md, every command as it stands there, on two appliances of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from live_appliance import LiveAppliance, start_appliance

pytestmark = pytest.mark.timeout(900)
STOPPED = "with the appliance stopped"


class Walker:
    """One person at one appliance: types the page's lines; `make serve` starts it, another one restarts it."""

    def __init__(self, repository: Path, home: Path, names: dict[str, str]) -> None:
        self.home = home
        self.names = names
        """What this machine has in the place of what the page calls it."""
        self.settings: dict[str, str] = {}
        self.state = home / "var"
        self.appliance: LiveAppliance | None = None
        home.mkdir()
        (home / ".venv").symlink_to(repository / ".venv")
        self._guard = str(repository / "tests/guard")

    def type(self, block: str) -> str:
        """Do a block's lines in order; return all that was said."""
        said = []
        for line in filter(None, block.splitlines()):
            command = line.split("  #")[0].strip()
            for name, here in self.names.items():
                command = command.replace(name, here)
            if command == "make serve":
                self.serve()
            elif command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                self.settings[name] = value.strip("'")
            else:
                if STOPPED in line:
                    self.stop()
                said.append(self.run(command))
        return "\n".join(said)

    def run(self, command: str, *, expected: int = 0) -> str:
        """Run one command line in this person's shell."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")},
            **self.settings,
            "CLOISTER_STATE_DIR": str(self.state),
            "PYTHONPATH": self._guard,
        }
        if self.appliance is not None:
            environment["CLOISTER_URL"] = self.appliance.url
        ran = subprocess.run(
            ["bash", "-euc", command], env=environment, cwd=self.home, capture_output=True, text=True, check=False
        )
        assert ran.returncode == expected, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def serve(self) -> LiveAppliance:
        """As `make serve` does, with what was exported."""
        self.stop()
        self.appliance = start_appliance(self.state, **self.settings)
        return self.appliance

    def stop(self) -> None:
        """Ctrl-C."""
        if self.appliance is not None and self.appliance.process.poll() is None:
            assert self.appliance.stop() == 0
        self.appliance = None


def blocks_of(repository: Path, page: str) -> list[str]:
    """The commands of a page."""
    return re.findall(r"```console\n(.*?)```", (repository / "docs" / page).read_text(), re.DOTALL)


def test_heads_leave_and_come_back_as_the_page_says(repository: Path, tmp_path: Path):
    """A medium, a witness over the network and by files, the auditor's three verdicts, and a new signing key."""
    medium, witnessed, as_witness, by_files, auditing, rotating = blocks_of(repository, "anchors.md")
    log = Walker(repository, tmp_path / "log", {"/media/anchors": str(tmp_path / "medium")})
    witness = Walker(repository, tmp_path / "witness", {})
    try:
        log.type(medium)
        assert (tmp_path / "medium" / "cloister-anchors").exists()
        vkey = (log.state / "log" / "verifier.vkey").read_text().strip()
        (log.home / "kept.vkey").write_text(vkey)

        keys = witness.serve().keys
        witness.names["cloister.example/log+1a2b3c4d+..."] = vkey
        witness_vkey = witness.type(as_witness).splitlines()[0]
        key_file = log.home / "witness.key"
        key_file.touch(0o600)
        key_file.write_text(keys["peer"])
        (log.home / "witness.vkey").write_text(witness_vkey)
        assert witness.appliance is not None
        log.names |= {
            "https://witness.plant.example/w": witness.appliance.url,
            "witness.plant.example/1+...": witness_vkey,
            "/etc/cloister/witness.key": str(key_file),
            ', "ca_file": "/etc/cloister/plant-ca.pem"': "",  # over loopback there is no certificate
        }
        log.type(witnessed)
        log.serve()
        log.stop()  # its last head leaves to both places
        assert list((tmp_path / "medium").glob("*/newest.checkpoint"))
        kept = [note.read_text() for note in (log.state / "anchors").glob("*.checkpoint")]
        assert any("— witness.plant.example/1 " in note for note in kept)

        request, cosign, keep = by_files.strip().splitlines()
        log.type(request)
        witness.stop()
        (log.home / "head.submission").rename(witness.home / "head.submission")
        witness.type(cosign)
        (witness.home / "cosigned.note").rename(log.home / "cosigned.note")
        log.type(keep)

        log.run(".venv/bin/cloister audit export EXPORT")
        head = (log.home / "EXPORT" / "tlog" / "checkpoint").read_text()
        (log.home / "captured.log").write_text((log.home / "cosigned.note").read_text())
        verdicts = log.type(auditing).count("VERIFIED: nothing contradicts anything")
        assert verdicts == 3
        assert head.startswith("cloister.development/")

        said = log.type(rotating)
        assert vkey in said
        new_vkey = (log.state / "log" / "verifier.vkey").read_text().strip()
        assert new_vkey != vkey
        log.stop()
        assert "VERIFIED: nothing contradicts anything" in log.run(".venv/bin/cloister audit verify")
    finally:
        for walker in (log, witness):
            walker.stop()


def test_the_auditor_reads_and_proves_as_the_page_says(repository: Path, tmp_path: Path):
    """Read, prove, export, verify, a receipt with and without the appliance, and the account with the engine."""
    reading, receipts, accounts = blocks_of(repository, "audit.md")
    walker = Walker(repository, tmp_path / "home", {})
    try:
        appliance = walker.serve()
        with appliance.client("developer") as developer:
            asked = developer.post("/v1/completions", json={"model": "starter", "prompt": "The pump", "max_tokens": 1})
        receipt = asked.headers["x-cloister-receipt"]
        index = receipt.partition(":")[0]
        with appliance.client("auditor") as auditor:
            for _ in range(20):  # the page reads entry 17
                assert auditor.get("/audit/checkpoint").status_code == 200
        walker.names |= {
            "RECEIPT": receipt,
            "--vkey K": f"--vkey {walker.state / 'log' / 'verifier.vkey'}",
        }
        said = walker.type(reading)
        assert "entry 17 is in the tree of" in said
        assert "VERIFIED: nothing contradicts anything" in said
        assert walker.type(receipts).count(f"the request of entry {index} is in the tree of") == 2
        assert walker.type(accounts).count("balanced") >= 1
    finally:
        walker.stop()
