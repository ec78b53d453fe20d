"""Refuse every outbound socket, in the test process and in every Python child it starts.

This folder is put on PYTHONPATH by `make test`; Python imports `sitecustomize` before anything else runs, so a child
process cannot forget it.  Loopback and Unix sockets are the only ways out that the product is allowed to have.
"""

from __future__ import annotations

import ipaddress
import sys


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
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_outbound(event: str, args: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if address is not None and not _is_local(address):
            raise OutboundSocketError(f"outbound socket refused: {address!r}")
    elif event == "socket.getaddrinfo":
        host = args[0]
        if host is not None and not _is_local((host.decode() if isinstance(host, bytes) else host,)):
            raise OutboundSocketError(f"name lookup refused: {host!r}")


sys.addaudithook(_refuse_outbound)
