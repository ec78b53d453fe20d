"""The copies of the log that go to an operator's tools: one thread each, beside everything else.

Promise: what is durable reaches every destination at least once and in order; no request, append or stop waits for one
for longer than a stop's grace.  Never: reads what is not durable, or moves a cursor before its sink took the leaves.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog

from appliance.audit_trail import Kind
from appliance.settings import SettingsRefused
from appliance.state.files import make_folder
from audit.siem.cursor import CursorFile
from audit.siem.destination import Destination, Transport
from audit.siem.exported import LogName
from audit.siem.exporter import Exporter
from audit.siem.file_sink import FileSink
from audit.siem.sink import Sink
from audit.siem.socket_sinks import DatagramSink, TcpSink

if TYPE_CHECKING:
    from appliance.settings import Settings
    from appliance.state.layout import StateLayout
    from audit.reader import AuditReader

LOG = structlog.get_logger("cloister.siem")
OWN_KINDS = frozenset({Kind.EXPORT_FAILING.value, Kind.EXPORT_RECOVERED.value})
"""Leaves that tell of the copies themselves: they are copied, and no failure of theirs makes another one."""


class SiemExports:
    """Every copy of one appliance; empty where the operator configured none."""

    def __init__(self, exporters: tuple[Exporter, ...] = (), *, grace_s: float = 0.0) -> None:
        self.exporters = exporters
        self._grace_s = grace_s

    @classmethod
    def start(
        cls,
        settings: Settings,
        layout: StateLayout,
        origin: str,
        reader: AuditReader,
        on_change: Callable[[], None],
    ) -> SiemExports:
        """Start a thread per destination; `on_change` is called in it when a destination fails or works again.

        Raises:
            OSError: there is no folder for the cursors and none can be made.
            SettingsRefused: the certificates cannot be read.
        """
        name = LogName(origin, version("cloister"))
        exporters = []
        for text in settings.siem_exports:
            destination = Destination.parse(text)
            cursor = layout.siem_cursor(destination.digest)
            make_folder(cursor.parent)
            exporters.append(
                Exporter(
                    destination,
                    name,
                    reader,
                    _sink(settings, destination),
                    CursorFile(cursor, destination=text, log=origin),
                    own_kinds=OWN_KINDS,
                    on_change=on_change,
                )
            )
        return cls(tuple(exporters), grace_s=settings.siem_deadline_s)

    def wake(self) -> None:
        """Say that the log has grown.  Called in the writer's thread after every commit: it waits for nothing."""
        for exporter in self.exporters:
            exporter.wake()

    def close(self) -> None:
        """Give every destination the same last grace to take what is durable; one that hangs is left behind."""
        deadline = time.monotonic() + self._grace_s
        for exporter in self.exporters:
            if not exporter.close(max(0.0, deadline - time.monotonic())):
                LOG.warning(
                    "export_left_behind",
                    destination=exporter.destination.text,
                    next_index=exporter.status.next_index,
                    remedy="it goes on from there at the next start",
                )


def _sink(settings: Settings, destination: Destination) -> Sink:
    if destination.transport in (Transport.TCP, Transport.TLS):
        tls = _tls(settings) if destination.transport is Transport.TLS else None
        return TcpSink(destination.host, destination.port, deadline_s=settings.siem_deadline_s, tls=tls)
    if destination.transport is Transport.UDP:
        return DatagramSink((destination.host, destination.port), deadline_s=settings.siem_deadline_s)
    assert destination.path is not None, f"{destination.text} has a path"
    if destination.transport is Transport.UNIX:
        return DatagramSink(destination.path, deadline_s=settings.siem_deadline_s)
    return FileSink(destination.path, max_bytes=settings.siem_file_bytes, max_files=settings.siem_file_count)


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.siem_ca_file)
    except OSError as refusal:
        reason = refusal.strerror or type(refusal).__name__
        raise SettingsRefused(f"CLOISTER_SIEM_CA_FILE: {settings.siem_ca_file}: {reason}") from refusal
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
