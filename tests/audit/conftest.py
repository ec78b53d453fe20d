from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit_log_builder import SIGNER
from log_places import LogPlace, new_place

from audit.store import create_log
from audit.writer import AuditWriter, WriterConfig


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """An empty log."""
    path = tmp_path / "audit.db"
    create_log(path, [SIGNER])
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], LogPlace]:
    """Makes empty logs, in each store in turn."""
    store = request.param
    server = request.getfixturevalue("postgres_server") if store == "postgres" else None
    num_made = 0

    def make() -> LogPlace:
        nonlocal num_made
        num_made += 1
        folder = tmp_path / f"log-{num_made}"
        folder.mkdir()
        return new_place(store, folder, server)

    return make


@pytest.fixture
def place(make_place: Callable[[], LogPlace]) -> LogPlace:
    """An empty log, in each store in turn."""
    return make_place()


@pytest.fixture
def open_writer(request: pytest.FixtureRequest) -> Iterator[Callable[..., AuditWriter]]:
    """Opens writers on the test's log, be it `place` or `log_path`, and closes them in the end."""
    if "place" in request.fixturenames:
        location = request.getfixturevalue("place").writer
    else:
        location = request.getfixturevalue("log_path")
    writers: list[AuditWriter] = []

    def open_(*, config: dict[str, object] | None = None, **arguments: object) -> AuditWriter:
        settings = {"min_free_bytes": 0, **(config or {})}
        writer = AuditWriter.open(WriterConfig(location, "node-1", "boot-1", **settings), [SIGNER], **arguments)
        writers.append(writer)
        return writer

    yield open_
    for writer in writers:
        writer.close()
