"""Refuse every outbound socket, in the test process and in every Python child it starts.

This folder is put on PYTHONPATH by `make test`; Python imports `sitecustomize` before anything else runs, so a child
process cannot forget it.  Loopback and Unix sockets are the only ways out that the product is allowed to have.

Three layers hold it:
- Python's `socket` module, and with it asyncio's own loop, raises audit events before it acts; one hook hears them all.
- A socket that is given a name instead of an address asks for that name's address before it raises its event, so the
  methods that take an address are checked for names first.
- uvloop calls the system by itself and raises none.  When it is imported, its `Loop` is replaced by a subclass that
  checks every address first; whoever makes a loop by any public name of uvloop gets that one.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

NAME_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class OutboundSocketError(RuntimeError):
    """Something tried to leave the machine."""


def _is_local(address: object) -> bool:
    if isinstance(address, (str, bytes)):  # AF_UNIX
        return True
    if not isinstance(address, tuple) or not address:
        return False
    host = address[0]
    if host in ("", "localhost"):
        return True
    if not isinstance(host, str):  # a number is no host: other families, such as AF_NETLINK, put theirs here
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(address: object) -> None:
    if address is not None and not _is_local(address):
        raise OutboundSocketError(f"outbound socket refused: {address!r}")


def _check_lookup(host: object) -> None:
    name = host.decode(errors="replace") if isinstance(host, (bytes, bytearray)) else host
    if name is not None and not _is_local((name,)):
        raise OutboundSocketError(f"name lookup refused: {host!r}")


def _refuse_outbound(event: str, args: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check_address(args[1])
    elif event in NAME_LOOKUPS:
        _check_lookup(args[0])
    elif event == "socket.getnameinfo":
        _check_address(args[0])


def _check_for_a_name(address: object) -> None:
    host = address[0] if isinstance(address, tuple) and address else None
    if not isinstance(host, (str, bytes, bytearray)):
        return
    try:
        ipaddress.ip_address(host if isinstance(host, str) else host.decode(errors="replace"))
    except ValueError:
        _check_lookup(host)


def _checks_names_first(act):
    """Wrap a method of `socket.socket` whose last argument may be an address."""

    @functools.wraps(act)
    def checked(self, *args):
        _check_for_a_name(args[-1] if args else None)
        return act(self, *args)

    return checked


def _checked_loop(loop: type) -> type:
    """Give a subclass of uvloop's loop that checks whatever could leave the machine."""

    class Loop(loop):
        async def create_connection(self, protocol_factory, host=None, port=None, **options):
            _check_lookup(host)
            _check_address(options.get("local_addr"))
            return await super().create_connection(protocol_factory, host, port, **options)

        async def create_server(self, protocol_factory, host=None, port=None, **options):
            for name in [host] if host is None or isinstance(host, (str, bytes)) else host:
                _check_lookup(name)
            return await super().create_server(protocol_factory, host, port, **options)

        async def create_datagram_endpoint(self, protocol_factory, local_addr=None, remote_addr=None, **options):
            # A transport without one fixed peer sends wherever it is told, unheard by anyone: refused altogether.
            sock = options.get("sock")
            peer = remote_addr if sock is None else _peer(sock)
            if peer is None:
                raise OutboundSocketError("a datagram endpoint without a fixed local peer is refused on uvloop")
            _check_address(peer)
            _check_address(local_addr)
            return await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)

        async def sock_connect(self, sock, address):
            _check_address(address)
            return await super().sock_connect(sock, address)

        async def getaddrinfo(self, host, port, **options):
            _check_lookup(host)
            return await super().getaddrinfo(host, port, **options)

        async def getnameinfo(self, sockaddr, flags=0):
            _check_address(sockaddr)
            return await super().getnameinfo(sockaddr, flags)

    Loop.__module__, Loop.__qualname__ = loop.__module__, loop.__qualname__
    return Loop


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:  # not connected
        return None


class _CheckedLoader(SourceFileLoader):
    """Loads uvloop's package and puts the checked loop in every place where the other one can be had."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.Loop = module.loop.Loop = _checked_loop(module.Loop)  # `new_event_loop` reads the first at each call


class _UvloopFinder:
    """First on the import path's list of finders, for one name alone."""

    @staticmethod
    def find_spec(name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != "uvloop":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            if not isinstance(spec.loader, SourceFileLoader):
                raise OutboundSocketError(f"uvloop is not loaded from its source: {spec.loader!r} cannot be guarded")
            spec.loader = _CheckedLoader(spec.loader.name, spec.loader.path)
        return spec


sys.addaudithook(_refuse_outbound)
for _method in ("bind", "connect", "connect_ex", "sendto", "sendmsg"):
    setattr(socket.socket, _method, _checks_names_first(getattr(socket.socket, _method)))
sys.meta_path.insert(0, _UvloopFinder)
