from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, attacker, build_log, request_events
from hypothesis import given, settings
from hypothesis import strategies as st

import audit.sqlite.engine
from audit.errors import AuditCorrupt, AuditError, EntryNotFound, KeyringUnusable, LogUnusable, SettingRefused
from audit.export import export_log
from audit.reader import AuditReader
from audit.recovery import recover_head
from audit.store import open_engine, snapshot
from audit.subject_keys.commitment import Commitment
from audit.subject_keys.keyring import SubjectKeyring
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

EVENTS = request_events(40)
KEK = b"\x21" * 32
SUBJECTS = tuple(f"subject-{number}" for number in range(120))
PAGE_LEN = 4_096

Damage = Callable[[Path], None]


def overwriting(first: int, last: int | None, byte: bytes) -> Damage:
    """Overwrite a range of the file, to its end for None."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        end = len(content) if last is None else last
        content[first:end] = byte * (end - first)
        path.write_bytes(content)

    return damage


def cutting(keep: Callable[[int], int]) -> Damage:
    """Keep the beginning alone."""
    return lambda path: path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


def dropping(table: str) -> Damage:
    """Take a table away, as a wrong hand can."""

    def damage(path: Path) -> None:
        raw = sqlite3.connect(path)
        raw.execute("PRAGMA foreign_keys=OFF")
        raw.execute(f"DROP TABLE {table}")
        raw.commit()
        raw.close()

    return damage


DAMAGES: dict[str, Damage] = {
    "header of zeros": overwriting(0, 100, b"\0"),
    "header of another kind": overwriting(0, 16, b"x"),
    "only zeros": overwriting(0, None, b"\0"),
    "first page's body": overwriting(100, PAGE_LEN, b"\xa5"),
    "every other page": overwriting(PAGE_LEN, None, b"\xa5"),
    "every other page zeroed": overwriting(PAGE_LEN, None, b"\0"),
    "emptied": cutting(lambda _: 0),
    "cut in the header": cutting(lambda _: 50),
    "cut after the header": cutting(lambda _: 100),
    "cut to one page": cutting(lambda _: PAGE_LEN),
    "cut in the middle": cutting(lambda size: size // 2),
}


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A log of several pages per table."""
    path = tmp_path_factory.mktemp("whole") / "audit.db"
    build_log(path, EVENTS, [1] * 30 + [len(EVENTS) - 30])
    return path.read_bytes()


@pytest.fixture
def log(tmp_path: Path, whole_log: bytes) -> Path:
    """A copy to damage."""
    return private(tmp_path / "audit.db", whole_log)


@pytest.fixture(scope="module")
def whole_keyring(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Commitment]]:
    """A keyring of several pages, and a commitment of each subject."""
    path = tmp_path_factory.mktemp("whole") / "subject_keys.db"
    with SubjectKeyring.create(path, KEK) as keyring:
        made = {subject: keyring.commitment(subject, "req-1", "prompt", b"hello") for subject in SUBJECTS}
        keyring._file.empty_write_ahead_log()
    return path.read_bytes(), made


@pytest.fixture
def keys(tmp_path: Path, whole_keyring: tuple[bytes, dict[str, Commitment]]) -> Path:
    """A copy to damage."""
    return private(tmp_path / "subject_keys.db", whole_keyring[0])


def private(path: Path, content: bytes) -> Path:
    """Write a file that may be opened."""
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def open_and_close(path: Path) -> None:
    """Open the log for writing."""
    AuditWriter.open(WriterConfig(path, "node-1", "boot-1", min_free_bytes=0), [SIGNER]).close()


def read_all(path: Path) -> None:
    """Call everything that a reader can do."""
    with AuditReader(path) as reader:
        reader.head()
        reader.checkpoint(30)
        reader.entry(3)
        assert [entry.leaf.event for entry in reader.entries(limit=1_000).entries] == EVENTS
        reader.tail(5)
        reader.proof(3)
        reader.consistency(7)
        reader.open_subjects(PAIRING)


LOG_DAMAGES = {
    **DAMAGES,
    **{f"no table {table}": dropping(table) for table in ("leaf", "node", "checkpoint", "alembic_version")},
}


@pytest.mark.parametrize("use", [open_and_close, read_all])
@pytest.mark.parametrize("what", LOG_DAMAGES)
def test_a_damaged_log_is_refused_by_its_name(log: Path, what: str, use: Callable[[Path], None]) -> None:
    """Written to or read: one kind of error, the file in it, a hint, and never the database library's own."""
    LOG_DAMAGES[what](log)
    with pytest.raises(AuditCorrupt) as refusal:
        use(log)
    assert str(log) in str(refusal.value)
    assert refusal.value.path == log
    assert refusal.value.hint


@pytest.mark.parametrize("what", LOG_DAMAGES)
def test_a_damaged_log_is_neither_exported_nor_found_sound(tmp_path: Path, log: Path, what: str) -> None:
    """The auditor's tools say so too: the export refuses and leaves nothing, the verifier has findings."""
    LOG_DAMAGES[what](log)
    assert not verify_log(log, [SIGNER.verifier], PAIRING).ok
    if what not in {"no table alembic_version", "no table node"}:  # which an export of so few entries does not read
        with pytest.raises(AuditCorrupt, match=r"audit\.db"):
            export_log(log, tmp_path / "exported", SIGNER.verifier)
        assert not (tmp_path / "exported").exists()


def test_the_undamaged_copies_are_used(
    log: Path, keys: Path, whole_keyring: tuple[bytes, dict[str, Commitment]]
) -> None:
    """Without this, each refusal here could have another cause."""
    read_all(log)
    open_and_close(log)
    with SubjectKeyring(keys, KEK) as keyring:
        assert all(keyring.check(made, "req-1", "prompt", b"hello") for made in whole_keyring[1].values())


def test_a_damaged_log_is_left_as_it_was_found(log: Path) -> None:
    """An emptied or cut file gets no new header: it is evidence."""
    for left in (b"", log.read_bytes()[:50]):
        log.write_bytes(left)
        for use in (open_and_close, read_all):
            with pytest.raises(AuditCorrupt, match=f"{len(left)} bytes"):
                use(log)
        assert log.read_bytes() == left


@pytest.mark.parametrize(
    "statement", ["DELETE FROM checkpoint", "INSERT INTO alembic_version VALUES ('r0000')"], ids=["none", "two"]
)
def test_a_row_too_few_or_too_many_is_damage(log: Path, statement: str) -> None:
    """Reading the head or the revision never ends in the library's words for it."""
    with attacker(log) as raw:
        raw.execute(statement)
    for use in (open_and_close, read_all):
        with pytest.raises(AuditCorrupt, match=r"audit\.db"):
            use(log)


@given(place=st.integers(0, 2**20), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_no_changed_byte_of_a_log_gets_past_the_errors_of_this_package(
    tmp_path_factory: pytest.TempPathFactory, whole_log: bytes, place: int, flip: int
) -> None:
    """Either everything reads as it was written, or the refusal is one of ours."""
    changed = bytearray(whole_log)
    changed[place % len(changed)] ^= flip
    path = private(tmp_path_factory.mktemp("flipped") / "audit.db", bytes(changed))
    for use in (recover, read_all):
        try:
            use(path)
        except AuditError as refusal:
            named = "audit.db" in str(refusal)
            assert named or isinstance(refusal, EntryNotFound)  # noqa: PT017 - no refusal is right as well


def recover(path: Path) -> None:
    """Prove the head, as an opening for writing does."""
    engine = open_engine(path, read_only=True)
    try:
        with snapshot(engine, path) as connection:
            recover_head(connection, [SIGNER.verifier])
    finally:
        engine.dispose()


def test_a_log_that_another_process_holds_is_not_called_damaged(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's no is another error than damage: nobody restores a backup over a sound log."""
    impatient = tuple(
        ("busy_timeout", "0", 0) if row[0] == "busy_timeout" else row for row in audit.sqlite.engine._SETTINGS
    )
    monkeypatch.setattr(audit.sqlite.engine, "_SETTINGS", impatient)
    holder = sqlite3.connect(log, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnusable, match="locked") as refusal:
        open_and_close(log)
    assert str(log) in str(refusal.value)
    holder.rollback()
    holder.close()
    open_and_close(log)


KEYRING_DAMAGES = {**DAMAGES, **{f"no table {table}": dropping(table) for table in ("subject_key", "key_check")}}


@pytest.mark.parametrize("what", KEYRING_DAMAGES)
def test_a_damaged_keyring_stops_the_start_by_its_name(keys: Path, what: str) -> None:
    """Not the first request after it."""
    KEYRING_DAMAGES[what](keys)
    with pytest.raises(AuditCorrupt) as refusal:
        SubjectKeyring(keys, KEK)
    assert str(keys) in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize("subjects", [(), ("alice",)], ids=["empty", "used"])
def test_the_wrong_key_encryption_key_stops_the_start(tmp_path: Path, subjects: tuple[str, ...]) -> None:
    """Even before the first subject has a key; otherwise two keys would wrap one keyring."""
    path = tmp_path / "subject_keys.db"
    with SubjectKeyring.create(path, KEK) as keyring:
        for subject in subjects:
            keyring.commitment(subject, "req-1", "prompt", b"hello")
    with pytest.raises(AuditCorrupt, match=r"subject_keys\.db: the check value cannot be unwrapped"):
        SubjectKeyring(path, b"\x22" * 32)
    SubjectKeyring(path, KEK).close()


def test_a_keyring_of_another_format_is_refused_by_its_name(keys: Path) -> None:
    """Another version's file is no damage."""
    raw = sqlite3.connect(keys)
    raw.execute("PRAGMA user_version=1")
    raw.close()
    with pytest.raises(SettingRefused, match=r"subject_keys\.db: the format must be 2 but is 1"):
        SubjectKeyring(keys, KEK)


def test_an_index_that_lost_a_subject_stops_the_start(keys: Path) -> None:
    """Its second key would hide the first one from erasure."""
    raw = sqlite3.connect(keys, isolation_level=None)
    raw.execute("PRAGMA writable_schema=ON")
    name, sql = raw.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND sql IS NOT NULL").fetchone()
    raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (f"{sql} WHERE destroyed = 9", name))
    raw.close()
    raw = sqlite3.connect(keys, isolation_level=None)
    raw.execute(f"REINDEX {name}")  # now it holds no row
    raw.execute("PRAGMA writable_schema=ON")
    raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))
    raw.close()
    with pytest.raises(AuditCorrupt, match=r"subject_keys\.db: .*index"):
        SubjectKeyring(keys, KEK)


@pytest.mark.parametrize("column", ["nonce", "wrapped"])
def test_a_key_that_is_gone_without_being_destroyed_is_damage(
    keys: Path, whole_keyring: tuple[bytes, dict[str, Commitment]], column: str
) -> None:
    """Neither erased in silence, nor a crash."""
    made = whole_keyring[1]["subject-7"]
    raw = sqlite3.connect(keys)
    raw.execute(f"UPDATE subject_key SET {column} = NULL WHERE key_id = ?", (made.key_id,))
    raw.commit()
    raw.close()
    with SubjectKeyring(keys, KEK) as keyring:
        with pytest.raises(AuditCorrupt, match=r"subject_keys\.db"):
            keyring.check(made, "req-1", "prompt", b"hello")
        with pytest.raises(AuditCorrupt, match=r"subject_keys\.db"):
            keyring.commitment("subject-7", "req-2", "prompt", b"hello")
        assert keyring.commitment("subject-8", "req-2", "prompt", b"hello")


@given(place=st.integers(0, 2**20), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_no_changed_byte_of_a_keyring_gets_past_the_errors_of_this_package(
    tmp_path_factory: pytest.TempPathFactory,
    whole_keyring: tuple[bytes, dict[str, Commitment]],
    place: int,
    flip: int,
) -> None:
    """Opening, checking, committing, destroying: right, or refused by one of ours."""
    content, made = whole_keyring
    changed = bytearray(content)
    changed[place % len(changed)] ^= flip
    path = private(tmp_path_factory.mktemp("flipped") / "subject_keys.db", bytes(changed))
    try:
        keyring = SubjectKeyring(path, KEK)
    except AuditError as refusal:
        assert "subject_keys.db" in str(refusal)  # noqa: PT017 - no refusal is right as well
        return
    with keyring:
        for subject, commitment in made.items():
            use_keyring(keyring, subject, commitment)


def use_keyring(keyring: SubjectKeyring, subject: str, commitment: Commitment) -> None:
    """Each call is right or refused by an error of ours."""
    calls: tuple[Callable[[], object], ...] = (
        lambda: keyring.check(commitment, "req-1", "prompt", b"hello") or pytest.fail("a true commitment was denied"),
        lambda: keyring.commitment(subject, "req-2", "prompt", b"hello"),
        lambda: keyring.destroy(keyring.keys_of(subject).living) if subject == SUBJECTS[0] else None,
    )
    for call in calls:
        try:
            call()
        except AuditError:
            continue


@pytest.mark.parametrize("use", ["commitment", "destroy"])
def test_a_file_that_became_read_only_refuses_and_is_not_called_damaged(keys: Path, use: str) -> None:
    """Nothing of a failed call stays behind, and the next one works once the machine lets it."""
    with SubjectKeyring(keys, KEK) as keyring:
        with keyring._file._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
        before = raw.execute("SELECT * FROM subject_key ORDER BY key_id").fetchall()
        raw.execute("PRAGMA query_only=ON")  # what a file system that became read-only says
        with pytest.raises(KeyringUnusable, match=r"subject_keys\.db: .*readonly") as refusal:
            keyring.commitment("new", "req-1", "prompt", b"x") if use == "commitment" else keyring.destroy(
                keyring.keys_of("subject-1").living
            )
        assert refusal.value.path == keys
        raw.execute("PRAGMA query_only=OFF")
        assert raw.execute("SELECT * FROM subject_key ORDER BY key_id").fetchall() == before
        made = keyring.commitment("new", "req-1", "prompt", b"x")
        assert keyring.check(made, "req-1", "prompt", b"x")
        assert len(keyring.destroy(keyring.keys_of("subject-1").living)) == 1
