"""A stop comes to its end whoever is stuck: an engine that does not step, a reader that does not read."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

from live_appliance import LiveAppliance, start_appliance

from appliance.audit_trail import PAIRING
from audit.checkpoint import LogVerifier
from audit.reader import AuditReader
from audit.report import Report
from audit.verify import verify_log


def _verified(state_dir: Path) -> tuple[Report, list[str]]:
    log, vkey = state_dir / "log" / "audit.db", (state_dir / "log" / "verifier.vkey").read_text().strip()
    with AuditReader(log) as reader:
        kinds = [entry.leaf.event.kind for entry in reader.tail(4)]
    return verify_log(log, [LogVerifier.from_vkey(vkey)], PAIRING), kinds


def _engine_pid(appliance: LiveAppliance) -> int:
    children = Path(f"/proc/{appliance.process.pid}/task/{appliance.process.pid}/children").read_text().split()
    (pid,) = (int(pid) for pid in children if b"engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def test_a_stalled_engine_does_not_hold_up_the_stop(tmp_path: Path):
    """With the engine frozen in the middle of an answer, the stop ends it and the request has its record."""
    state_dir = tmp_path / "state"
    appliance = start_appliance(state_dir, CLOISTER_DRAIN_DEADLINE_S="0")
    began = threading.Event()

    def ask() -> None:
        body = {"model": "starter", "prompt": "The", "max_tokens": 900, "ignore_eos": True, "stream": True}
        with appliance.client("developer") as client, client.stream("POST", "/v1/completions", json=body) as response:
            for _ in response.iter_lines():
                began.set()

    asking = threading.Thread(target=ask)
    asking.start()
    began.wait()
    os.kill(_engine_pid(appliance), signal.SIGSTOP)
    assert appliance.stop() == 0
    asking.join()
    report, kinds = _verified(state_dir)
    assert report.ok
    assert report.unfinished == ()
    assert kinds[-1] == "appliance:stopped"
    assert "request:cancelled" in kinds


def test_a_reader_that_does_not_read_does_not_hold_up_the_stop(tmp_path: Path):
    """A whole answer of megabytes that nobody takes is dropped at the stop; its record is there."""
    state_dir = tmp_path / "state"
    appliance = start_appliance(state_dir, CLOISTER_DRAIN_DEADLINE_S="60")
    body = (
        b'{"model":"starter","messages":[{"role":"user","content":"The"}],"max_tokens":200,"ignore_eos":true,'
        b'"n":16,"logprobs":true,"top_logprobs":20}'
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer " + appliance.keys["developer"].encode() + b"\r\ncontent-length: "
    )
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", int(appliance.url.rsplit(":", 1)[1])))
        reader.sendall(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        reader.recv(1)  # the answer is made and on its way; nobody reads on
        assert appliance.stop() == 0
    report, kinds = _verified(state_dir)
    assert report.ok
    assert report.unfinished == ()
    assert kinds[-1] == "appliance:stopped"
