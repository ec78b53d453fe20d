"""A log moves from its file into PostgreSQL as it is: every row, every proof, and the fence closed behind it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from audit_log_builder import PAIRING, SIGNER, attacker, event_now
from real_postgres import READER, WRITER, LogDatabase, PostgresServer

from audit.errors import AuditCorrupt, WriterLocked
from audit.event import Floor, Pruned, SealedContent
from audit.provision import move_log
from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

pytestmark = pytest.mark.postgres


@pytest.fixture
async def log(log_path: Path) -> Path:
    """Entries with contents; the first of them pruned."""
    writer = AuditWriter.open(WriterConfig(log_path, "n", "b", min_free_bytes=0), [SIGNER])
    contents = [[SealedContent("prompt", "k", b"n" * 12, b"%d" % number)] for number in range(300)]
    for future in [writer.submit(event_now(number), content) for number, content in enumerate(contents)]:
        future.result()
    await writer.prune(event_now(0, "log:pruned", "log"), Floor(Pruned.LEAF, 256))
    writer.close()
    return log_path


def move(log: Path, database: LogDatabase) -> None:
    """As the operator's command does."""
    move_log(log, database.owner, [SIGNER.verifier], writer=WRITER, reader=READER)


def is_empty(database: LogDatabase) -> bool:
    """Whether nothing at all was left in the database."""
    with psycopg.connect(database.superuser) as connection:
        return connection.execute("SELECT to_regnamespace('cloister')").fetchone() == (None,)


def test_a_moved_log_is_the_same_log(postgres_server: PostgresServer, log: Path):
    """Same head, same bytes, same contents and floor; it verifies, and goes on."""
    database = postgres_server.empty_database()
    move(log, database)
    with AuditReader(log) as before, AuditReader(database.reader) as after:
        assert after.head() == before.head()
        assert after.floors() == before.floors()
        for index in range(256, 301):
            assert after.entry(index) == before.entry(index)
            assert after.content(index, "prompt") == before.content(index, "prompt")
            assert after.proof(index) == before.proof(index)
    writer = AuditWriter.open(WriterConfig(database.writer, "n", "b"), [SIGNER])
    assert writer.submit(event_now(1, subject="after")).result().index == 301
    writer.close()
    assert verify_log(database.reader, [SIGNER.verifier], PAIRING).findings == ()


def test_a_log_whose_head_is_not_proven_does_not_move(postgres_server: PostgresServer, log: Path):
    """And nothing of it is in the database afterwards."""
    database = postgres_server.empty_database()
    with attacker(log) as raw:
        raw.execute("UPDATE leaf SET leaf_bytes = x'00' WHERE idx = 299")
    with pytest.raises(AuditCorrupt):
        move(log, database)
    assert is_empty(database)


def test_a_log_that_somebody_writes_to_does_not_move(postgres_server: PostgresServer, log: Path):
    """What he would write next would be in the file alone."""
    database = postgres_server.empty_database()
    writer = AuditWriter.open(WriterConfig(log, "n", "b", min_free_bytes=0), [SIGNER])
    with pytest.raises(WriterLocked):
        move(log, database)
    writer.close()
    assert is_empty(database)
