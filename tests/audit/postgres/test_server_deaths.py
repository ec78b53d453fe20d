"""The server dies under load, again and again: the writer asks what became of each commit, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from real_postgres import LogDatabase, PostgresServer, binaries

from audit.event import Receipt
from audit.postgres.engine import _in_words
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig, WriterState

pytestmark = pytest.mark.postgres

ROUNDS = max(6, int(os.environ.get("CLOISTER_CRASH_ROUNDS", "50")) // 8)
NUM_APPENDERS = 8
MAX_RECEIPTS_PER_ROUND = 200


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    found = binaries()
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    server = PostgresServer(found[0])
    yield server
    server.close()


class Load:
    """Threads that admit and complete requests until they are told to stop."""

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer
        self._stopped = threading.Event()
        self._more = threading.Condition()
        self.receipts: list[tuple[Receipt, str]] = []
        """Guarded by the condition."""
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._append, args=(number,)) for number in range(NUM_APPENDERS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, count: int) -> None:
        """Return once so many more were acknowledged, or raise what stopped that."""
        with self._more:
            wanted = len(self.receipts) + count
            assert self._more.wait_for(lambda: len(self.receipts) >= wanted or self.errors, 120)
        assert self.errors == []

    def stop(self) -> None:
        """End with the requests that are under way."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _append(self, thread: int) -> None:
        number = 0
        try:
            while not self._stopped.is_set():
                subject = f"req-{thread}-{number}"
                for kind in ("request:admitted", "request:completed"):
                    receipt = self._writer.submit(event_now(number, kind, subject)).result(timeout=120)
                    with self._more:
                        self.receipts.append((receipt, subject))
                        self._more.notify_all()
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test shows it
            with self._more:
                self.errors.append(error)
                self._more.notify_all()


def kill_the_writers_backend(server: PostgresServer, writer: AuditWriter) -> None:
    """A child of the postmaster dies by -9, in whatever it was doing: the server restarts all of them."""
    del server
    session = writer._log._hold._session
    if session is not None:
        with suppress(ProcessLookupError):
            os.kill(session, signal.SIGKILL)


def stop_at_once(server: PostgresServer, writer: AuditWriter) -> None:
    """`pg_ctl stop -m immediate`: no checkpoint, recovery at the start."""
    del writer
    server.stop("immediate")
    server.start()


def kill_the_postmaster(server: PostgresServer, writer: AuditWriter) -> None:
    """The parent dies by -9; its children end by themselves, and only then may a new one start."""
    del writer
    parent = server.pid
    family = [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]
    server.kill()
    while any(map(_is_running, family)):
        pass
    for lock in (server.data / "postmaster.pid", server.folder / ".s.PGSQL.5432.lock"):
        lock.unlink()  # where nobody collects the dead, its owner would count as alive
    server.start()


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def cut_every_session(server: PostgresServer, writer: AuditWriter) -> None:
    """A network that breaks."""
    del writer
    with psycopg.connect(server.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cloister_writer'"
        ).fetchall()


DEATHS = (kill_the_writers_backend, stop_at_once, kill_the_postmaster, cut_every_session)


@pytest.mark.parametrize("death", DEATHS)
def test_a_server_that_dies_under_load_loses_nothing_acknowledged(own_server: PostgresServer, death) -> None:
    """Strike in the middle of the load, see it go on, strike again; every receipt is the one leaf at its place."""
    database: LogDatabase = own_server.log_database(SIGNER)
    interruptions: list[str | None] = []
    config = WriterConfig(database.writer, "node-1", "boot-1", min_free_bytes=0, patience_s=60)
    writer = AuditWriter.open(config, [SIGNER], on_interruption=interruptions.append)
    draw = random.Random(death.__name__)
    load = Load(writer)
    load.start()
    try:
        for _ in range(ROUNDS):
            load.wait_for_more(draw.randrange(1, MAX_RECEIPTS_PER_ROUND))
            death(own_server, writer)
        load.wait_for_more(1)
    finally:
        load.stop()
    writer.close()
    assert load.errors == []
    assert writer.state is WriterState.CLOSED
    assert any(reason is not None for reason in interruptions), "nobody noticed: the deaths prove nothing"
    report = verify_log(database.reader, [SIGNER.verifier], PAIRING)
    assert report.findings == ()
    assert report.num_leaves == len(load.receipts), "no leaf twice, none without its receipt"
    with AuditReader(database.reader) as reader:
        for receipt, subject in load.receipts:
            entry = reader.entry(receipt.index)
            assert (entry.leaf_hash.hex(), entry.leaf.event.subject) == (receipt.leaf_hash, subject)
    print(f"{ROUNDS} times {death.__name__}: {len(load.receipts)} receipts, 0 violations")


@pytest.mark.parametrize(
    ("severity", "sqlstate", "detail", "is_farewell"),
    [
        ("FATAL", "57P01", None, True),  # an administrator ended the session, or the postmaster is gone
        ("WARNING", "57P01", None, True),  # an immediate stop
        ("WARNING", "57P02", "The postmaster has commanded this server process to roll back", True),
        ("WARNING", "57P01", "The transaction has already committed locally", False),  # no standby confirmed it
        ("WARNING", "01000", None, False),
    ],
)
def test_a_warning_about_a_commit_is_never_taken_for_a_farewell(
    severity: str, sqlstate: str, detail: str | None, *, is_farewell: bool
) -> None:
    """What ends a connection has the commit asked for; what is said of a commit ends the writer."""
    said = SimpleNamespace(
        severity_nonlocalized=severity, sqlstate=sqlstate, message_primary="said", message_detail=detail
    )
    heard: list[str] = []
    _in_words(heard.append)(said)
    assert heard == ([] if is_farewell else [f"{severity}: said"])
