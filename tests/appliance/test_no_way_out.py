"""The appliance as it runs has no socket that leads anywhere but to this machine; the engine has none but its pair."""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from pathlib import Path

from live_appliance import LiveAppliance

LISTENING = "0A"
INTERNET = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
CHAT = {"model": "starter", "messages": [{"role": "user", "content": "Pump 3?"}], "max_tokens": 8}


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
        if found:
            inodes.add(found[1])
    return inodes


def _unix_inodes(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    return {line.split()[6] for line in lines}


def _internet_sockets(pid: int) -> dict[str, tuple[str, str, str, str]]:
    """Give inode -> (table, local address, remote address, state)."""
    sockets = {}
    for table in INTERNET:
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            sockets[fields[9]] = (table, _address(fields[1]), _address(fields[2]), fields[3])
    return sockets


def _address(field: str) -> str:
    # The kernel prints each 32-bit word of the address in the machine's own byte order.
    host = field.partition(":")[0]
    words = [int(host[start : start + 8], 16) for start in range(0, len(host), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _engine_pid(pid: int) -> int:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    engines = [one for one in children if b"engine.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]
    assert len(engines) == 1, f"children {children}, engines {engines}"
    return engines[0]


def test_the_process_has_no_reason_to_open_an_outbound_socket(live: LiveAppliance):
    """After answers, refusals and a URL that it must not follow: loopback alone, and not even that for the engine."""
    trap = {"type": "image_url", "image_url": {"url": "http://192.0.2.1/x.png"}}
    with live.client("developer") as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert "[DONE]" in client.post("/v1/chat/completions", json={**CHAT, "stream": True}).text
        fetched = {**CHAT, "messages": [{"role": "user", "content": [trap]}]}
        assert client.post("/v1/chat/completions", json=fetched).status_code == 400
        assert client.get("/v1/models").status_code == 200

        # The client still holds its connection, so there is at least that one to see beside the listener.
        api, engine = live.process.pid, _engine_pid(live.process.pid)
        internet, held = _internet_sockets(api), _socket_inodes(api)
        mine = [internet[inode] for inode in held if inode in internet]
        assert held <= set(internet) | _unix_inodes(api), "a socket of a kind that has no place here"

    port_states = sorted(state == LISTENING for _, _, _, state in mine)
    assert port_states[-1] is True, "the listener"
    assert port_states[0] is False, "the client's connection"
    for table, local, remote, state in mine:
        assert table == "tcp", (table, local, remote)
        assert ipaddress.ip_address(local).is_loopback, (table, local, remote)
        assert state == LISTENING or ipaddress.ip_address(remote).is_loopback, (table, local, remote)

    engine_sockets = _socket_inodes(engine)
    assert engine_sockets, "the pair to its parent"
    assert engine_sockets <= _unix_inodes(engine), "the engine talks to its parent alone"


def test_both_processes_run_under_the_guard(live: LiveAppliance, repository: Path):
    """What the other tests prove of outbound sockets, they prove of the live processes too."""
    guard = str(repository / "tests" / "guard")
    for pid in (live.process.pid, _engine_pid(live.process.pid)):
        environment = dict(
            entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in entry
        )
        paths = [str(Path(repository, one)) for one in environment["PYTHONPATH"].split(os.pathsep)]
        assert guard in paths
