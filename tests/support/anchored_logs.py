"""Signed heads of a small tree, and servers that behave or misbehave, for tests of what leaves the box."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from audit_log_builder import SIGNER

from audit.anchoring.head import SignedHead
from audit.anchoring.witness import RefusalKind, Witness, WitnessRefused
from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.merkle import consistency_proof, leaf_hash, tree_root

STATUSES = {
    RefusalKind.MALFORMED: 400,
    RefusalKind.UNKNOWN_LOG: 404,
    RefusalKind.UNSIGNED: 403,
    RefusalKind.OTHER_SIZE: 409,
    RefusalKind.OTHER_ROOT: 409,
    RefusalKind.INCONSISTENT: 422,
    RefusalKind.NOT_NOW: 503,
}


class Tree:
    """Leaves in memory: any head, any proof."""

    def __init__(self, leaves: Sequence[bytes], signers: Sequence[LogSigner] = (SIGNER,)) -> None:
        self._hashes = [leaf_hash(leaf) for leaf in leaves]
        self._signers = signers

    def head(self, size: int) -> SignedHead:
        """Sign the tree of the first leaves."""
        checkpoint = Checkpoint(self._signers[0].name, size, tree_root(self._hashes[:size]))
        return SignedHead(checkpoint, sign_checkpoint(checkpoint, self._signers))

    def prove(self, old_size: int, new_size: int) -> list[bytes]:
        """Prove growth."""
        return consistency_proof(self._node, old_size, new_size)

    def _node(self, level: int, index: int) -> bytes:
        return tree_root(self._hashes[index << level : (index + 1) << level])


def numbered(count: int, *, changed: int | None = None) -> list[bytes]:
    """Leaves that differ, one of them changed."""
    return [b"another" if number == changed else b"leaf %d" % number for number in range(count)]


class WitnessServer:
    """A witness over HTTP as the specification says it, without credentials; remembers what it was sent."""

    def __init__(self, witness: Witness) -> None:
        self.bodies: list[str] = []
        self.authorizations: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                owner.bodies.append(body)
                owner.authorizations.append(self.headers.get("authorization"))
                media_type = "text/plain"
                try:
                    status, answer = 200, witness.add_checkpoint(body).cosignature.line
                except WitnessRefused as refusal:
                    status, answer = STATUSES[refusal.kind], refusal.what
                    if refusal.kind is RefusalKind.OTHER_SIZE:
                        media_type, answer = "text/x.tlog.size", f"{refusal.size}\n"
                self.send_response(status if self.path == "/w/add-checkpoint" else 404)
                self.send_header("content-type", media_type)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/w"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def listening(act: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port and do something with the one connection that comes; whatever it raises fails the test."""
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                act(connection)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)
        assert not thread.is_alive(), "nobody came"
    if failures:
        raise failures[0]


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory for the length of a block; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
