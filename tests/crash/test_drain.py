"""A request during a stop is turned away with a record; an answer that runs is finished.

The engine is frozen while the stop is ordered, so that the answer cannot end before the appliance is seen stopping.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from live_appliance import LiveAppliance, start_appliance

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.reader import AuditReader, EntryFilter
from audit.verify import verify_log

MAX_TOKENS = 400
MAX_LOOKS = 10_000
"""At `/readyz`, before the test gives up; each waits for its answer."""


@dataclass
class Answer:
    """One streamed answer as its client saw it."""

    began: threading.Event = field(default_factory=threading.Event)
    request_id: str = ""
    finish_reason: str | None = None
    num_tokens: int = 0
    done: bool = False

    def ask(self, appliance: LiveAppliance) -> None:
        """Ask, and read to the end."""
        body = {
            "model": "starter",
            "prompt": "The pump",
            "max_tokens": MAX_TOKENS,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with appliance.client("developer") as client, client.stream("POST", "/v1/completions", json=body) as response:
            self.request_id = response.headers["x-request-id"]
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, chunk: dict) -> None:
        if chunk.get("usage"):
            self.num_tokens = chunk["usage"]["completion_tokens"]
        for choice in chunk.get("choices", ()):  # an error has none
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        self.began.set()


def _engine_pid(appliance: LiveAppliance) -> int:
    children = Path(f"/proc/{appliance.process.pid}/task/{appliance.process.pid}/children").read_text().split()
    (pid,) = (int(pid) for pid in children if b"engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def _obstacles(appliance: LiveAppliance) -> Iterator[list[str]]:
    with httpx.Client(base_url=appliance.url, trust_env=False, timeout=60) as client:
        for _ in range(MAX_LOOKS):
            yield [obstacle["code"] for obstacle in client.get("/readyz").json()["obstacles"]]


def test_a_stop_turns_newcomers_away_and_finishes_what_runs(tmp_path: Path):
    """While the drain lasts a new request is 503 `stopping` with a record; the running one gets all its tokens."""
    if not Path("/proc/self/task").exists():
        pytest.skip("finding the engine process needs /proc")
    state_dir = tmp_path / "state"
    limits = {"CLOISTER_DRAIN_DEADLINE_S": "600", "CLOISTER_STALL_LIMIT_S": "600"}
    appliance = start_appliance(state_dir, **limits)
    answer = Answer()
    asking = threading.Thread(target=answer.ask, args=(appliance,))
    asking.start()
    answer.began.wait()
    engine = _engine_pid(appliance)
    os.kill(engine, signal.SIGSTOP)
    try:
        appliance.process.send_signal(signal.SIGINT)
        assert any("stopping" in codes for codes in _obstacles(appliance)), "the stop was never seen"
        with appliance.client("developer") as client:
            body = {"model": "starter", "prompt": "x", "max_tokens": 1}
            refused = client.post("/v1/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    finally:
        os.kill(engine, signal.SIGCONT)
    asking.join()
    assert appliance.process.wait(60) == 0
    assert (answer.finish_reason, answer.num_tokens, answer.done) == ("length", MAX_TOKENS, True)

    log, vkey = state_dir / "log" / "audit.db", (state_dir / "log" / "verifier.vkey").read_text().strip()
    report = verify_log(log, [LogVerifier.from_vkey(vkey)], PAIRING)
    assert report.ok
    assert report.unfinished == ()
    with AuditReader(log) as reader:
        kinds = {
            subject: [entry.leaf.event.kind for entry in reader.entries(EntryFilter(subject=subject)).entries]
            for subject in (answer.request_id, refused.headers["x-request-id"])
        }
        last = reader.tail(1)[0].leaf.event.kind
    assert list(kinds.values()) == [["request:admitted", "request:completed"], ["request:refused"]]
    assert last == "appliance:stopped"
