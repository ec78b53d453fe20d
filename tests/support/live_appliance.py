"""A real appliance in a process of its own, started by the real command, for tests that talk to it as a client does."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 180
BANNER_END = b"Stop with Ctrl-C.\n"
SERVE = (Path(sys.executable).parent / "cloister", "serve", "--development")


@dataclass(frozen=True, slots=True)
class LiveAppliance:
    """Where it is and how to call it."""

    url: str
    state_dir: Path
    process: subprocess.Popen[bytes]
    banner: str
    keys: Mapping[str, str]

    def client(self, role: str) -> httpx.Client:
        """Give an HTTP client with one role's key."""
        headers = {"authorization": f"Bearer {self.keys[role]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def stop(self) -> int:
        """Order a stop, as Ctrl-C does, and wait for it."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(60)


def free_port() -> int:
    """Give a port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_appliance(
    state_dir: Path, command: Sequence[str | Path] = SERVE, *, own_group: bool = False, **settings: str
) -> LiveAppliance:
    """Start `cloister serve` and wait until it says that a first token came back.

    Args:
        state_dir: its state; made when there is none.
        command: what ends in `cloister serve`.
        own_group: put it into a process group of its own, as a shell does.
        settings: more of the environment.
    """
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")},
        "CLOISTER_PORT": str(port),
        "CLOISTER_STATE_DIR": str(state_dir),
        "CLOISTER_ENGINE_THREADS": "1",
        "CLOISTER_MIN_FREE_BYTES": "0",
        "CLOISTER_LOG_LEVEL": "warning",
        **settings,
    }
    errors = state_dir.parent / f"{state_dir.name}.stderr"
    with errors.open("ab") as stderr:
        process = subprocess.Popen(
            command,
            env=environment,
            start_new_session=own_group,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            cwd=REPOSITORY,
        )
    banner = _read_banner(process, errors)
    keys = json.loads((state_dir / "dev" / "keys.json").read_text())
    return LiveAppliance(f"http://127.0.0.1:{port}", state_dir, process, banner, keys)


def _read_banner(process: subprocess.Popen[bytes], errors: Path) -> str:
    """Read standard output up to the banner's last line; a process that ends before it is an error with its stderr."""
    assert process.stdout is not None
    banner = b""
    deadline = time.monotonic() + START_DEADLINE_S
    with selectors.DefaultSelector() as selector, process.stdout:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(process.stdout.fileno(), 65536)
            banner += chunk
            if BANNER_END in banner:
                return banner.decode()
            if not chunk:
                break
    process.kill()
    process.wait()
    raise AssertionError(f"the appliance did not start:\n{banner.decode()}\n{errors.read_text()}")


@contextlib.contextmanager
def running_appliance(state_dir: Path, **settings: str) -> Iterator[LiveAppliance]:
    """Run an appliance for the length of a block."""
    appliance = start_appliance(state_dir, **settings)
    try:
        yield appliance
    finally:
        if appliance.process.poll() is None:
            appliance.stop()
