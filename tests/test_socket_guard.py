"""The guard itself: without it, a suite that passes says nothing about ways out of the machine.

192.0.2.1 and 2001:db8::1 are addresses for documentation: no host has them, should an attempt ever get past the guard.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys

import pytest
import uvloop
import uvloop.loop
from sitecustomize import OutboundSocketError

OUTSIDE = ("192.0.2.1", 9)
OUTSIDE_6 = ("2001:db8::1", 9)
NAME = "outside.example"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


async def _sock_connect(loop, address):
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)


LOOP_ATTEMPTS = {
    "an address": lambda loop: loop.create_connection(asyncio.Protocol, *OUTSIDE),
    "an IPv6 address": lambda loop: loop.create_connection(asyncio.Protocol, *OUTSIDE_6),
    "a name": lambda loop: loop.create_connection(asyncio.Protocol, NAME, 9),
    "a stream": lambda _loop: asyncio.open_connection(*OUTSIDE),
    "a socket of one's own": lambda loop: _sock_connect(loop, OUTSIDE),
    "a socket to a name": lambda loop: _sock_connect(loop, (NAME, 9)),
    "datagrams": lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=OUTSIDE),
    "datagrams to a name": lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(NAME, 9)),
    "a lookup": lambda loop: loop.getaddrinfo(NAME, 80),
    "a reverse lookup": lambda loop: loop.getnameinfo(OUTSIDE),
    "a server's name": lambda loop: loop.create_server(asyncio.Protocol, NAME, 0),
}
PLAIN_ATTEMPTS = {
    "connect": lambda tcp, _udp: tcp.connect(OUTSIDE),
    "connect_ex": lambda tcp, _udp: tcp.connect_ex(OUTSIDE),
    "create_connection": lambda _tcp, _udp: socket.create_connection(OUTSIDE),
    "connect to a name": lambda tcp, _udp: tcp.connect((NAME, 80)),
    "connect_ex to a name": lambda tcp, _udp: tcp.connect_ex((NAME, 80)),
    "bind to a name": lambda tcp, _udp: tcp.bind((NAME, 0)),
    "UDP sendto a name": lambda _tcp, udp: udp.sendto(b"x", (NAME, 9)),
    "UDP sendmsg to a name": lambda _tcp, udp: udp.sendmsg([b"x"], [], 0, (NAME, 9)),
    "UDP sendto": lambda _tcp, udp: udp.sendto(b"x", OUTSIDE),
    "UDP sendto with flags": lambda _tcp, udp: udp.sendto(b"x", 0, OUTSIDE),
    "UDP sendmsg": lambda _tcp, udp: udp.sendmsg([b"x"], [], 0, OUTSIDE),
    "UDP broadcast": lambda _tcp, udp: udp.sendto(b"x", ("<broadcast>", 9)),
    "UDP connect": lambda _tcp, udp: udp.connect(OUTSIDE),
    "getaddrinfo": lambda _tcp, _udp: socket.getaddrinfo(NAME, 80),
    "getaddrinfo of bytes": lambda _tcp, _udp: socket.getaddrinfo(NAME.encode(), 80),
    "gethostbyname": lambda _tcp, _udp: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda _tcp, _udp: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda _tcp, _udp: socket.gethostbyaddr(OUTSIDE[0]),
    "getnameinfo": lambda _tcp, _udp: socket.getnameinfo(OUTSIDE, 0),
}


@pytest.mark.parametrize("attempt", sorted(LOOP_ATTEMPTS))
@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_no_loop_leads_out(loop: str, attempt: str):
    """The loop that the appliance serves on raises no audit events; it is refused all the same."""

    async def try_it() -> None:
        await LOOP_ATTEMPTS[attempt](asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, pytest.raises(OutboundSocketError):
        runner.run(try_it())


@pytest.mark.parametrize("attempt", sorted(PLAIN_ATTEMPTS))
def test_no_plain_socket_leads_out(attempt: str):
    """Every call of the socket module that connects, sends or asks for a name."""
    with socket.socket() as tcp, _udp() as udp, pytest.raises(OutboundSocketError):
        PLAIN_ATTEMPTS[attempt](tcp, udp)


def test_a_datagram_transport_on_asyncio_sends_nothing_out():
    """There the transport gives itself up instead of raising: what ended it is the guard's refusal."""

    async def lost() -> Exception | None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Exception | None] = loop.create_future()
        loop.set_exception_handler(lambda _loop, _context: None)  # it would be printed as well

        class Ends(asyncio.DatagramProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ended.set_result(exc)

        transport, _ = await loop.create_datagram_endpoint(Ends, local_addr=("127.0.0.1", 0))
        transport.sendto(b"x", OUTSIDE)
        return await ended

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        assert isinstance(runner.run(lost()), OutboundSocketError)


@pytest.mark.parametrize("options", [{"local_addr": ("127.0.0.1", 0)}, {"family": socket.AF_INET}, {"sock": _udp}])
def test_a_datagram_transport_on_uvloop_needs_one_local_peer(options: dict):
    """Its `sendto` could not be heard, so there is none without a peer that was checked."""

    async def open_it() -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, **given)

    with _udp() as sock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        given = {"sock": sock} if "sock" in options else options
        with pytest.raises(OutboundSocketError):
            runner.run(open_it())


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_loopback_and_unix_sockets_work(loop: str, tmp_path):
    """What the appliance and its clients need: both kinds of address, both kinds of stream, the name of loopback."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    async def answer(connection) -> bytes:
        reader, writer = await connection
        writer.write(b"ping")
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
        return got

    async def exchange() -> list[bytes]:
        path = str(tmp_path / "echo")
        tcp = await asyncio.start_server(echo, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(echo, path)
        async with tcp, unix:
            port = tcp.sockets[0].getsockname()[1]
            return [
                await answer(asyncio.open_connection("127.0.0.1", port)),
                await answer(asyncio.open_connection("localhost", port)),
                await answer(asyncio.open_unix_connection(path)),
            ]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(exchange()) == [b"ping"] * 3


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_datagrams_reach_loopback(loop: str):
    """A fixed peer on loopback is no way out."""

    async def send(peer: tuple[str, int]) -> None:
        endpoint = await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=peer)
        endpoint[0].sendto(b"ping")
        endpoint[0].close()
        await asyncio.to_thread(receiver.recv, 0, socket.MSG_PEEK)

    with _udp() as receiver, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(30)
        runner.run(send(receiver.getsockname()))
        assert receiver.recv(16) == b"ping"


def test_every_public_way_to_a_uvloop_loop_gives_the_checked_one():
    """One class, wherever it is taken from."""
    loop = uvloop.new_event_loop()
    loop.close()
    assert type(loop) is uvloop.Loop is uvloop.loop.Loop
    assert uvloop.Loop.create_connection is not uvloop.Loop.__mro__[1].create_connection


CHILD = """
import asyncio, json, socket, sys
assert "uvloop" not in sys.modules and "asyncio" in sys.modules, "the guard must not import uvloop itself"
import uvloop

outcomes = {}

def attempt(name, act):
    try:
        act()
        outcomes[name] = "worked"
    except Exception as failure:
        outcomes[name] = type(failure).__name__

async def on_loop():
    await asyncio.open_connection("192.0.2.1", 9)

async def lookup():
    await asyncio.get_running_loop().getaddrinfo("outside.example", 80)

def run(factory, act):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(act())

attempt("plain", lambda: socket.create_connection(("192.0.2.1", 9)))
attempt("plain lookup", lambda: socket.getaddrinfo("outside.example", 80))
for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
    attempt(factory.__module__ + " connect", lambda: run(factory, on_loop))
    attempt(factory.__module__ + " lookup", lambda: run(factory, lookup))
attempt("loopback", lambda: socket.create_server(("127.0.0.1", 0)).close())
attempt("unix", lambda: [end.close() for end in socket.socketpair()])
print(json.dumps(outcomes))
"""


def test_a_child_process_is_guarded_too():
    """A Python child has the guard before its first line, on both loops."""
    child = subprocess.run([sys.executable, "-P", "-c", CHILD], check=True, capture_output=True, text=True)
    outcomes = json.loads(child.stdout)
    assert outcomes.pop("loopback") == outcomes.pop("unix") == "worked"
    assert len(outcomes) == 6
    assert set(outcomes.values()) == {"OutboundSocketError"}, outcomes
