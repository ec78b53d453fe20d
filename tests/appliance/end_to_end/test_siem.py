"""docs/siem.md, walked: a live appliance, a file and a TCP receiver, an outage, a crash, the check of the copy."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_appliance import LiveAppliance, running_appliance, start_appliance

from audit.siem.copy_lines import read_line

PROMPT = {"model": "starter", "prompt": "Pump", "max_tokens": 4}
COMMAND = str(Path(sys.executable).parent / "cloister")


class Receiver:
    """A syslog receiver: reads counted messages from one connection after the other."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self.listener.getsockname()[1]
        self.messages: list[bytes] = []
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for(self, index: int) -> None:
        """Wait until the entry of this index has come."""
        with self._arrived:
            come = self._arrived.wait_for(lambda: self.messages and read_line(self.messages[-1]).index >= index, 60)
            assert come, f"entry {index} never came"

    def close(self) -> None:
        """Listen no more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(60)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self._read(stream)

    def _read(self, stream) -> None:
        while digits := stream.read(1):
            while (digit := stream.read(1)) != b" ":
                digits += digit
            message = stream.read(int(digits))
            with self._arrived:
                self.messages.append(message)
                self._arrived.notify_all()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that listens."""
    made = Receiver()
    yield made
    made.close()


def run(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a state folder."""
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(state_dir)}
    return subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)


def ask(appliance: LiveAppliance) -> int:
    """Ask once; give the index of the terminal record's neighbour, the admission."""
    with appliance.client("developer") as client:
        answer = client.post("/v1/completions", json=PROMPT).raise_for_status()
    return int(answer.headers["x-cloister-receipt"].split(":")[0])


@pytest.mark.timeout(300)
def test_every_record_reaches_every_destination_across_a_kill(tmp_path: Path, receiver: Receiver):
    """A file and a receiver, killed in between: both copies are whole, and the commands of the page say so."""
    state, copy = tmp_path / "state", tmp_path / "cloister.jsonl"
    exports = json.dumps([f"jsonl+file://{copy}", f"cef+tcp://127.0.0.1:{receiver.port}"])
    killed = start_appliance(state, CLOISTER_SIEM_EXPORTS=exports)
    receiver.wait_for(ask(killed))
    killed.kill()
    with running_appliance(state, CLOISTER_SIEM_EXPORTS=exports) as appliance:
        last = ask(appliance)
        receiver.wait_for(last)
        with appliance.client("operator") as operator:
            metrics = operator.get("/metrics").text
        assert f'cloister_siem_failing{{destination="jsonl+file://{copy}"}} 0.0' in metrics
    received = tmp_path / "received.cef"
    received.write_bytes(b"\n".join(receiver.messages) + b"\n")
    page = (Path(__file__).parents[3] / "docs/siem.md").read_text()
    commands = re.findall(r"^\.venv/bin/cloister (audit siem-check.*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        typed = shlex.split(command.replace("/srv/siem/cloister.jsonl", str(copy)))
        assert (said := run(state, *typed)).returncode == 0, said.stdout + said.stderr
    assert json.loads(said.stdout)["num_behind"] == 0, "the stop itself is in the copy"
    assert run(state, "audit", "siem-check", "--from", "0", str(received)).returncode == 0
    lines = copy.read_bytes().splitlines(keepends=True)
    copy.write_bytes(b"".join(lines[:3] + lines[4:]))
    refused = run(state, "audit", "siem-check", str(copy))
    assert refused.returncode == 4
    assert "missing: entry 3" in refused.stdout


@pytest.mark.timeout(300)
def test_an_outage_is_recorded_and_holds_up_no_request(tmp_path: Path):
    """Nobody listens: requests are answered, the log says so; later somebody does, and gets everything."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = f"cef+tcp://127.0.0.1:{port}"
    with running_appliance(tmp_path / "state", CLOISTER_SIEM_EXPORTS=json.dumps([text])) as appliance:
        ask(appliance)
        with appliance.client("auditor") as auditor:
            told: list[dict] = []
            while not told:
                told = auditor.get("/audit/entries", params={"subject": text}).json()["data"]
            assert told[0]["entry"]["kind"] == "export:failing"
            assert told[0]["entry"]["facts"]["code"] == "sink_failed"
            receiver = Receiver(port)
            receiver.wait_for(told[0]["index"])
            while len(told) < 2:
                told = auditor.get("/audit/entries", params={"subject": text}).json()["data"]
        assert told[1]["entry"]["kind"] == "export:recovered"
    indexes = sorted({read_line(message).index for message in receiver.messages})
    assert indexes == list(range(len(indexes)))
    receiver.close()


def test_a_destination_that_is_none_stops_the_start(tmp_path: Path):
    """Named, with what one looks like."""
    environment = {**os.environ, "CLOISTER_STATE_DIR": str(tmp_path / "s"), "CLOISTER_SIEM_EXPORTS": '["splunk"]'}
    said = subprocess.run(
        [COMMAND, "serve", "--development"], env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert "CLOISTER_SIEM_EXPORTS" in said.stderr
    assert "FORMAT+TRANSPORT" in said.stderr
