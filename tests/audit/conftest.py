from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit_log_builder import SIGNER

from audit.store import create_log
from audit.writer import AuditWriter, WriterConfig


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """An empty log."""
    path = tmp_path / "audit.db"
    create_log(path, [SIGNER])
    return path


@pytest.fixture
def open_writer(log_path: Path) -> Iterator[Callable[..., AuditWriter]]:
    """Opens writers on the log and closes them in the end."""
    writers: list[AuditWriter] = []

    def open_(*, config: dict[str, object] | None = None, **arguments: object) -> AuditWriter:
        settings = {"min_free_bytes": 0, **(config or {})}
        writer = AuditWriter.open(WriterConfig(log_path, "node-1", "boot-1", **settings), [SIGNER], **arguments)
        writers.append(writer)
        return writer

    yield open_
    for writer in writers:
        writer.close()
