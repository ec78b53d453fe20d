"""The master of the database acts while the writer runs: no receipt is given for what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from real_postgres import LogDatabase, PostgresServer

from audit.errors import AuditHalted
from audit.event import Receipt
from audit.schema import metadata
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

pytestmark = pytest.mark.postgres


@contextmanager
def writing(database: LogDatabase) -> Iterator[Callable[[], Receipt]]:
    """Give what appends an entry; at the end the log has the acknowledged ones, no others, and opens again."""
    config = WriterConfig(database.writer, "node-1", "boot-1", min_free_bytes=0, patience_s=5)
    writer = AuditWriter.open(config, [SIGNER])
    acknowledged: list[Receipt] = []

    def append() -> Receipt:
        acknowledged.append(writer.submit(event_now(len(acknowledged))).result(timeout=60))
        return acknowledged[-1]

    append()
    yield append
    writer.close()
    writer = AuditWriter.open(config, [SIGNER])
    assert append().index == len(acknowledged) - 1
    writer.close()
    report = verify_log(database.reader, [SIGNER.verifier], PAIRING)
    assert (report.findings, report.num_leaves) == ((), len(acknowledged))


def as_master(database: LogDatabase, *statements: str) -> None:
    """In the log's schema."""
    with psycopg.connect(database.superuser, autocommit=True, options="-c search_path=cloister") as master:
        for statement in statements:
            master.execute(statement.encode())


@pytest.mark.parametrize("fate", ["trigger", "rule"])
def test_rows_that_vanish_on_their_way_in_get_no_receipt(postgres_server: PostgresServer, fate: str):
    """Everything of one batch is swallowed, the checkpoint too, and then the fence is mended: nothing would show it."""
    database = postgres_server.log_database(SIGNER)
    made = {
        "trigger": "CREATE TRIGGER a BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION public.nothing()",
        "rule": "CREATE RULE a AS ON INSERT TO {} DO INSTEAD NOTHING",
    }[fate]
    dropped = {"trigger": "DROP TRIGGER a ON {}", "rule": "DROP RULE a ON {}"}[fate]
    function = "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    with writing(database) as append:
        as_master(database, function, *(made.format(table) for table in metadata.tables))
        with pytest.raises(AuditHalted, match="took 0 of 1 rows of leaf"):
            append()
        as_master(database, *(dropped.format(table) for table in metadata.tables))
