"""kill -9 of the API process under load, round after round: nothing that a client saw is missing from the log.

Every round starts the appliance again on the same state, so each start also recovers what the last kill left behind.
The kill comes after a drawn number of events that the clients have seen, from the very first answer byte on.
"""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, start_appliance

from appliance.audit_trail import PAIRING, Kind
from audit.checkpoint import LogVerifier
from audit.reader import AuditReader
from audit.verify import verify_log

NUM_CLIENTS = 4
MAX_EVENTS_BEFORE_KILL = 60
SEED = 20261124


@dataclass
class Seen:
    """What one client saw of one answer."""

    admitted: str
    """Receipt from the head of the answer."""
    num_tokens: int = 0
    finished: bool = False
    """A finish chunk, or a whole body, arrived."""
    terminal: str | None = None


@dataclass
class Load:
    """Clients that ask until the appliance is gone, and kill it after so many events."""

    appliance: LiveAppliance
    kill_after: int
    seen: list[Seen] = field(default_factory=list)
    num_events: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, rng: random.Random) -> list[Seen]:
        """Run until the appliance was killed."""
        threads = [
            threading.Thread(target=self._ask_until_gone, args=(random.Random(rng.random()),))
            for _ in range(NUM_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.appliance.process.wait()
        return self.seen

    def _ask_until_gone(self, rng: random.Random) -> None:
        with self.appliance.client("developer") as client:
            while self.appliance.process.poll() is None:
                try:
                    self._stream(client, rng) if rng.random() < 0.7 else self._whole(client, rng)
                except httpx.TransportError:
                    return

    def _stream(self, client: httpx.Client, rng: random.Random) -> None:
        with client.stream("POST", "/v1/completions", json=_body(rng, stream=True)) as response:
            assert response.status_code == 200, response.read()
            seen = self._note(response)
            for line in response.iter_lines():
                if line.startswith(": x-cloister-terminal-receipt "):
                    seen.terminal = line.rsplit(" ", 1)[1]
                elif line.startswith("data: {"):
                    choice = (json.loads(line.removeprefix("data: "))["choices"] or [{}])[0]
                    seen.num_tokens += bool(choice.get("text"))
                    seen.finished |= choice.get("finish_reason") is not None
                self._event()

    def _whole(self, client: httpx.Client, rng: random.Random) -> None:
        response = client.post("/v1/completions", json=_body(rng, stream=False))
        assert response.status_code == 200, response.text
        seen = self._note(response)
        seen.num_tokens, seen.finished = 1, True
        seen.terminal = response.headers["x-cloister-terminal-receipt"]
        self._event()

    def _note(self, response: httpx.Response) -> Seen:
        seen = Seen(response.headers["x-cloister-receipt"])
        self.seen.append(seen)
        return seen

    def _event(self) -> None:
        with self.lock:
            self.num_events += 1
            if self.num_events == self.kill_after:
                self.appliance.kill()


def _body(rng: random.Random, *, stream: bool) -> dict:
    words = " ".join(rng.choice(["pump", "valve", "fan", "shift", "note"]) for _ in range(rng.randrange(1, 30)))
    return {
        "model": "starter",
        "prompt": words,
        "max_tokens": rng.randrange(1, 24),
        "ignore_eos": True,
        "stream": stream,
    }


def _check(state_dir: Path, seen: list[Seen]) -> int:
    """Hold what the clients saw against the log as it lies on disk; give the number of entries."""
    log, vkey = state_dir / "log" / "audit.db", (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(log, [LogVerifier.from_vkey(vkey)], PAIRING)
    assert report.ok, [str(finding) for finding in report.findings]
    with AuditReader(log) as reader:
        for one in seen:
            index, leaf_hash = one.admitted.split(":")
            entry = reader.entry(int(index))
            assert entry.leaf_hash.hex() == leaf_hash
            assert entry.leaf.event.kind == Kind.REQUEST_ADMITTED
            if not one.finished:
                continue
            ends = [
                end
                for end in reader.entries(after=int(index), limit=1000).entries
                if end.leaf.event.subject == entry.leaf.event.subject and end.leaf.event.kind in PAIRING.terminals
            ]
            assert [end.leaf.event.kind for end in ends] == [Kind.REQUEST_COMPLETED]
            if one.terminal is not None:
                assert one.terminal == f"{ends[0].index}:{ends[0].leaf_hash.hex()}"
    return report.num_leaves


def test_nothing_a_client_saw_is_lost(tmp_path: Path, request: pytest.FixtureRequest):
    """Every token that a client saw has its admitted leaf, every finished answer its terminal leaf, every time."""
    rounds = request.config.getoption("--crash-rounds")
    rng = random.Random(SEED)
    state_dir = tmp_path / "state"
    num_seen = num_finished = num_leaves = 0
    for number in range(rounds):
        appliance = start_appliance(state_dir)
        seen = Load(appliance, rng.randrange(1, MAX_EVENTS_BEFORE_KILL)).run(rng)
        size = _check(state_dir, seen)
        assert size > num_leaves, f"round {number}: the log has {size} entries after {num_leaves}"
        num_leaves = size
        num_seen += len(seen)
        num_finished += sum(one.finished for one in seen)
    print(f"{rounds} rounds, {num_seen} answers begun, {num_finished} finished, {num_leaves} entries")
    assert num_finished, "no answer ever finished: the load proves nothing"
    assert num_seen > num_finished, "no answer was ever cut: the kill proves nothing"

    last = start_appliance(state_dir)
    last.stop()
    log, vkey = state_dir / "log" / "audit.db", (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(log, [LogVerifier.from_vkey(vkey)], PAIRING)
    assert report.ok
    assert report.unfinished == (), "the start after the last kill closes what was left open"
