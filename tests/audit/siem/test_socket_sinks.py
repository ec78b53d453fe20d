from __future__ import annotations

import datetime as dt
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from audit.siem.sink import SinkFailed
from audit.siem.socket_sinks import DatagramSink, TcpSink
from audit.siem.syslog import octet_counted

EVENTS = [octet_counted(b"<110>1 - - - - - - event %d" % number) for number in range(50)]
LOOPBACK = "127.0.0.1"


class JumpingClock:
    """Each reading is a second later: a deadline passes after so many looks at the clock, however fast the machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Look."""
        self.now += 1.0
        return self.now


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port that somebody listens on."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server


def port_of(bound: socket.socket) -> int:
    """Give its port."""
    port: int = bound.getsockname()[1]
    return port


def read_exactly(connection: socket.socket, num_bytes: int) -> bytes:
    """Read so many bytes."""
    content = b""
    while len(content) < num_bytes:
        piece = connection.recv(num_bytes - len(content))
        assert piece, "the sink hung up"
        content += piece
    return content


def test_tcp_messages_arrive_counted_over_one_connection(listener: socket.socket) -> None:
    """A reader that knows the framing alone finds every message again."""
    sink = TcpSink(LOOPBACK, port_of(listener), deadline_s=30)
    sink.take(EVENTS[:20])
    sink.take(EVENTS[20:])
    connection, _ = listener.accept()
    sink.close()
    with connection, connection.makefile("rb") as stream:
        found = []
        while digits := stream.read(1):
            while (digit := stream.read(1)) != b" ":
                digits += digit
            found.append(stream.read(int(digits)))
    assert [octet_counted(message) for message in found] == EVENTS


def test_a_receiver_that_hung_up_gets_a_new_connection(listener: socket.socket) -> None:
    """A broken connection fails or is noticed before anything is written into it; the next try connects again."""
    sink = TcpSink(LOOPBACK, port_of(listener), deadline_s=30)
    sink.take(EVENTS[:1])
    first, _ = listener.accept()
    read_exactly(first, len(EVENTS[0]))
    first.close()
    sink.take(EVENTS[1:2])
    second, _ = listener.accept()
    with second:
        assert read_exactly(second, len(EVENTS[1])) == EVENTS[1]
    sink.close()


def test_a_reset_is_no_acknowledgement(listener: socket.socket) -> None:
    """A reset empties the kernel's queue as an acknowledgement does; it is not taken for one."""
    sink = TcpSink(LOOPBACK, port_of(listener), deadline_s=30)
    sink.take(EVENTS[:1])
    connection, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    listener.close()
    with pytest.raises(SinkFailed, match=LOOPBACK):
        sink.take(EVENTS)


def test_nobody_listens(listener: socket.socket) -> None:
    """Said with the address, and no socket is left behind."""
    port = port_of(listener)
    listener.close()
    with pytest.raises(SinkFailed, match=f"{LOOPBACK}:{port}.*refused"):
        TcpSink(LOOPBACK, port, deadline_s=30).take(EVENTS)


def test_a_receiver_that_accepts_and_never_reads_ends_at_the_deadline() -> None:
    """More than both kernels' buffers hold: the call ends at its deadline and not later, and says so."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sink = TcpSink(LOOPBACK, port_of(server), deadline_s=0.2)
        with pytest.raises(SinkFailed, match=r"took too long|did not take"):
            sink.take([b"x" * 2**26])
        sink.close()


def test_a_receiver_whose_machine_never_acknowledges_ends_at_the_deadline(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes left us and nobody has them: not taken.  By the clock's readings, not by waiting."""
    monkeypatch.setattr("audit.siem.socket_sinks._num_unacknowledged", lambda _connection: 1)
    sink = TcpSink(LOOPBACK, port_of(listener), deadline_s=20, monotonic=JumpingClock())
    with pytest.raises(SinkFailed, match="did not take the events"):
        sink.take(EVENTS[:1])
    sink.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A receiver's key and its certificate for `localhost`, which signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


class TlsReceiver:
    """Takes one connection after the other and keeps what each brought; a handshake that fails brings nothing."""

    def __init__(self, certificate: tuple[Path, Path], listener: socket.socket) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._listener = listener
        self.brought: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def join(self) -> None:
        """Wait until the one connection has ended."""
        self._thread.join()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        with plain, suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
            content = b""
            with suppress(ssl.SSLEOFError):
                while piece := connection.recv(65536):
                    content += piece
            self.brought.append(content)


def test_tls_messages_arrive_counted(certificate: tuple[Path, Path], listener: socket.socket) -> None:
    """RFC 5425: the same frames, to a receiver whose certificate names it."""
    receiver = TlsReceiver(certificate, listener)
    tls = ssl.create_default_context(cafile=certificate[0])
    sink = TcpSink("localhost", port_of(listener), deadline_s=60, tls=tls)
    sink.take(EVENTS[:20])
    sink.take(EVENTS[20:])
    sink.close()
    receiver.join()
    assert receiver.brought == [b"".join(EVENTS)]


@pytest.mark.parametrize("fault", ["nobody signed it", "another name"])
def test_a_receiver_that_does_not_prove_its_name_gets_nothing(
    certificate: tuple[Path, Path], listener: socket.socket, fault: str
) -> None:
    """Neither a stranger's certificate nor one of another name is believed; not a byte of an event leaves."""
    receiver = TlsReceiver(certificate, listener)
    tls = ssl.create_default_context(cafile=certificate[0] if fault == "another name" else None)
    host = LOOPBACK if fault == "another name" else "localhost"
    with pytest.raises(SinkFailed, match=host):
        TcpSink(host, port_of(listener), deadline_s=60, tls=tls).take(EVENTS)
    receiver.join()
    assert receiver.brought in ([], [b""])


def test_udp_sends_one_message_per_datagram() -> None:
    """No counting: the datagram is the frame."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((LOOPBACK, 0))
        sink = DatagramSink((LOOPBACK, port_of(receiver)), deadline_s=30)
        sink.take(EVENTS[:10])
        sink.close()
        assert [receiver.recv(65536) for _ in range(10)] == EVENTS[:10]


def test_udp_notices_that_nobody_is_there() -> None:
    """The machine's refusal comes back with a later send: as much as UDP can tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((LOOPBACK, 0))
        port = port_of(receiver)
    sink = DatagramSink((LOOPBACK, port), deadline_s=30)
    with pytest.raises(SinkFailed, match="refused"):
        sink.take(EVENTS)


def test_a_unix_socket_takes_messages_of_any_leaf(tmp_path: Path) -> None:
    """Also one as large as a whole leaf with its head."""
    path = tmp_path / "log"
    largest = b"x" * 70_000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        sink = DatagramSink(path, deadline_s=30)
        sink.take([b"first", largest])
        sink.close()
        assert [receiver.recv(2**20) for _ in range(2)] == [b"first", largest]
    with pytest.raises(SinkFailed, match=str(path)):
        sink.take([b"nobody reads"])


def test_a_unix_receiver_that_never_reads_ends_at_the_deadline(tmp_path: Path) -> None:
    """Its queue is full: the call ends at its deadline."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        sink = DatagramSink(path, deadline_s=0.2)
        with pytest.raises(SinkFailed, match="too long"):
            sink.take([b"x" * 1000] * 5000)


def test_a_slow_reader_gets_everything(listener: socket.socket) -> None:
    """More than the buffers hold is taken once the other end reads."""
    content = [octet_counted(b"y" * 2**16)] * 200
    received: list[bytes] = []

    def read() -> None:
        connection, _ = listener.accept()
        with connection:
            received.append(read_exactly(connection, sum(map(len, content))))
            assert connection.recv(1) == b"", "the sink hangs up first"

    reading = threading.Thread(target=read)
    reading.start()
    sink = TcpSink(LOOPBACK, port_of(listener), deadline_s=60)
    sink.take(content)
    sink.close()
    reading.join()
    assert received == [b"".join(content)]
