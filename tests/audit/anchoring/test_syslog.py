"""Syslog lines, taken by real sockets: what stands in them, and what the sink says of one that does not."""

from __future__ import annotations

import datetime as dt
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from anchored_logs import Tree, listening, numbered
from audit_log_builder import SIGNER

from audit.anchoring.evidence import read_anchors
from audit.anchoring.head import SignedHead
from audit.anchoring.syslog import SyslogAddress, SyslogSink
from audit.anchoring.syslog_line import notes_in, syslog_message
from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.errors import AnchorFailed

TREE = Tree(numbered(9))
HEAD = TREE.head(7)
NOW = dt.datetime(2026, 11, 24, 13, 0, 0, 1, tzinfo=dt.UTC)
ENOUGH_S = 60.0
RFC_5424 = re.compile(
    r"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) "
    r"(\[\S+@\d+(?: [^=\s\]\"]{1,32}=\"(?:[^\"\\\]]|\\[\"\\\]])*\")*\]) (.+)",
    re.DOTALL,
)


def sink(address: str) -> SyslogSink:
    """One with a clock that stands."""
    return SyslogSink(SyslogAddress.from_text(address), now=lambda: NOW)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    received = b""
    while chunk := connection.recv(4096):
        received += chunk
    return received


def test_the_line_is_rfc_5424_and_holds_the_whole_note() -> None:
    """Priority of the audit facility, UTC with microseconds, and the note in both places; under 2,048 bytes."""
    line = syslog_message(HEAD, NOW, "host-1", 42)
    match = RFC_5424.fullmatch(line.decode())
    assert match is not None
    priority, at, host, app, process, message_id, structure, message = match.groups()
    assert (int(priority) // 8, int(priority) % 8) == (13, 5)
    assert (at, host, app, process, message_id) == ("2026-11-24T13:00:00.000001Z", "host-1", "cloister", "42", "anchor")
    assert 'size="7"' in structure
    assert list(notes_in(structure)) == list(notes_in(message)) == [HEAD.note]
    assert b"\n" not in line
    assert len(line) < 2048


def test_an_origin_cannot_end_its_field() -> None:
    """Quotes, backslashes and brackets of an origin stay data."""
    checkpoint = Checkpoint('a"]b\\c', 1, bytes(32))
    note = sign_checkpoint(checkpoint, [LogSigner.from_seed('a"]b\\c', bytes(32))])
    match = RFC_5424.fullmatch(syslog_message(SignedHead(checkpoint, note), NOW, "h", 1).decode())
    assert match is not None
    assert r'origin="a\"\]b\\c"' in match[7]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_machine_s_own_daemon_takes_it_by_datagram_or_stream(tmp_path: Path, kind: int) -> None:
    """`/dev/log` is either, and the sink finds out."""
    path = tmp_path / "log"
    received: list[bytes] = []
    with socket.socket(socket.AF_UNIX, kind) as daemon:
        daemon.bind(str(path))
        if kind == socket.SOCK_DGRAM:
            assert sink(f"unix:{path}").anchor(HEAD, time.monotonic() + ENOUGH_S).size == 7
            received.append(daemon.recv(65536))
        else:
            daemon.listen()

            def serve() -> None:
                connection, _ = daemon.accept()
                with connection:
                    received.append(read_all(connection))

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            assert sink(f"unix:{path}").anchor(HEAD, time.monotonic() + ENOUGH_S).size == 7
            thread.join(ENOUGH_S)
    assert list(notes_in(received[0].decode())) == [HEAD.note]


def test_a_collector_over_tcp_has_read_everything_before_the_sink_returns() -> None:
    """Octet counting; the sink waits for the other end to be closed, which comes after the last byte."""
    received: list[bytes] = []
    with listening(lambda connection: received.append(read_all(connection))) as port:
        assert sink(f"tcp:127.0.0.1:{port}").anchor(HEAD, time.monotonic() + ENOUGH_S).size == 7
    length, _, line = received[0].partition(b" ")
    assert int(length) == len(line)
    assert list(notes_in(line.decode())) == [HEAD.note]


def test_a_collector_over_udp_gets_one_datagram() -> None:
    """Nobody can say more than that it was sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        assert sink(f"udp:127.0.0.1:{collector.getsockname()[1]}").anchor(HEAD, time.monotonic() + ENOUGH_S).size == 7
        assert list(notes_in(collector.recv(65536).decode())) == [HEAD.note]


def test_a_collector_that_accepts_and_never_reads_is_left_at_the_deadline() -> None:
    """The test ends because the sink does: the collector itself waits for that."""
    gave_up = threading.Event()
    with listening(lambda _connection: gave_up.wait(ENOUGH_S) or pytest.fail("the sink never gave up")) as port:
        with pytest.raises(AnchorFailed, match="within the deadline"):
            sink(f"tcp:127.0.0.1:{port}").anchor(HEAD, time.monotonic() + 0.2)
        gave_up.set()


@pytest.mark.parametrize("address", ["unix:/nowhere/log", "tcp:127.0.0.1:1"])
def test_a_collector_that_is_not_there_is_named(address: str) -> None:
    """With the machine's own word for it."""
    with pytest.raises(AnchorFailed, match=re.escape(address)):
        sink(address).anchor(HEAD, time.monotonic() + ENOUGH_S)


@pytest.mark.parametrize(
    "text", ["", "/dev/log", "unix:log", "udp:host", "tcp:host:0", "tcp::514", "tls:h:1", "udp:::1:514"]
)
def test_an_address_of_no_form_is_refused(text: str) -> None:
    """With the forms there are."""
    with pytest.raises(ValueError, match="udp:HOST:PORT"):
        SyslogAddress.from_text(text)


@pytest.mark.parametrize("text", ["unix:/dev/log", "udp:syslog.plant:514", "tcp:10.0.0.1:601", "tcp:[fd00::7]:601"])
def test_an_address_comes_back_as_it_was_typed(text: str) -> None:
    """Which is also the sink's name in records and metrics."""
    assert str(SyslogAddress.from_text(text)) == text


def test_a_captured_file_gives_its_heads_back_whatever_lies_between(tmp_path: Path) -> None:
    """Lines of the collector's own form, strangers' lines, a cut one; each head once, smallest first."""
    captured = tmp_path / "anchors.log"
    lines = [syslog_message(TREE.head(size), NOW, "h", 1).decode() for size in (7, 3, 7)]
    message_only = lines[1].rpartition("] ")[2]
    captured.write_text("\n".join(["other", lines[0], f"Nov 24 13:00:00 h cloister: {message_only}", lines[2][:200]]))
    found = read_anchors(captured, [SIGNER.verifier])
    assert [anchor.note for anchor in found.anchors] == [TREE.head(3).note, TREE.head(7).note]
    assert [anchor.source for anchor in found.anchors] == [f"{captured} line 3", f"{captured} line 2"]
