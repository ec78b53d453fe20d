from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, attacker, build_log, event_now, make_event, request_events
from hypothesis import given, settings
from hypothesis import strategies as st
from log_places import LogPlace, new_place
from query_plans import is_scan, plans_of

from audit.errors import AuditCorrupt, AuditRefused, EntryNotFound, LogMissing
from audit.merkle import leaf_hash, verify_consistency
from audit.reader import AuditReader, EntryFilter, OpenSubject
from audit.writer import AuditWriter

EVENTS = request_events(15)
SIZES = [1, 3, 10, 17, 29]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AuditReader:
    """A reader on 29 leaves in 5 batches, in each store in turn."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    place = new_place(request.param, tmp_path_factory.mktemp("reader"), server)
    place.fill(EVENTS, [1, 2, 7, 7, 12])
    with AuditReader(place.reader) as open_reader:
        yield open_reader


def test_an_entry_is_what_was_appended(reader: AuditReader) -> None:
    """Bytes, hash and event of every index."""
    for index, appended in enumerate(EVENTS):
        entry = reader.entry(index)
        assert entry.leaf.event == appended
        assert leaf_hash(entry.leaf_bytes) == entry.leaf_hash


@pytest.mark.parametrize("index", [-1, 29, 2**62])
def test_an_index_that_is_not_there_is_said_so(reader: AuditReader, index: int) -> None:
    """Entry and proof alike."""
    with pytest.raises(EntryNotFound):
        reader.entry(index)
    with pytest.raises(EntryNotFound):
        reader.proof(index)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["request:admitted", "request:completed", "no:such"]),
            "actor": st.sampled_from(["key-0", "key-1", "nobody"]),
            "tenant": st.sampled_from(["tenant-0", "tenant-1"]),
            "subject": st.sampled_from(["req-3", "req-4"]),
            "outcome": st.just("completed"),
            "from_ts_us": st.integers(0, 30).map(lambda number: make_event(number).ts_us),
            "until_ts_us": st.integers(0, 30).map(lambda number: make_event(number).ts_us),
        },
    ),
    st.integers(1, 7),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_paging_gives_each_matching_entry_once_in_order(
    reader: AuditReader, conditions: dict[str, object], limit: int, newest: bool
) -> None:
    """Whatever the filter, page length and direction, the pages together are the matching entries."""
    wanted = [index for index, appended in enumerate(EVENTS) if matches(appended, conditions)]
    found: list[int] = []
    after = None
    while True:
        page = reader.entries(EntryFilter(**conditions), after=after, limit=limit, newest=newest)
        assert len(page.entries) <= limit
        found += [entry.index for entry in page.entries]
        after = page.next_after
        if after is None:
            break
    assert found == (wanted[::-1] if newest else wanted)


FULL_EVENT = dataclasses.replace(
    make_event(50, "audit:example"),
    actor="the-actor",
    role="the-role",
    tenant="the-tenant",
    subject="the-subject",
    facts={name: f"the-{name}" for name in ("route", "model_root", "decision", "outcome", "label")},
)
"""Has a value of its own in everything that a filter can ask for."""
FINDING = {
    **{name: getattr(FULL_EVENT, name) for name in ("kind", "actor", "role", "tenant", "subject")},
    **FULL_EVENT.facts,
    "from_ts_us": FULL_EVENT.ts_us,
    "until_ts_us": FULL_EVENT.ts_us + 1,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EntryFilter)])
def test_every_filter_finds_a_record_that_must_match_and_no_other(tmp_path: Path, field: str) -> None:
    """A column that is always NULL cannot hide: a new field without a value in the table fails here as well."""
    path = tmp_path / "audit.db"
    before, after = (make_event(number, label="another", outcome="another") for number in (49, 51))
    build_log(path, [before, FULL_EVENT, after], [3])
    wanted = {"from_ts_us": [1, 2], "until_ts_us": [0, 1]}.get(field, [1])
    with AuditReader(path) as reader:
        page = reader.entries(EntryFilter(**{field: FINDING[field]}))
        assert [entry.index for entry in page.entries] == wanted
        assert reader.entries(EntryFilter(**FINDING)).entries == (reader.entry(1),)


def matches(appended: object, conditions: dict[str, object]) -> bool:
    """The filter, said in Python."""
    for name, value in conditions.items():
        if name == "from_ts_us":
            holds = appended.ts_us >= value
        elif name == "until_ts_us":
            holds = appended.ts_us < value
        elif name == "outcome":
            holds = appended.facts.get(name) == value
        else:
            holds = getattr(appended, name) == value
        if not holds:
            return False
    return True


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_without_bounds_is_refused(reader: AuditReader, limit: int) -> None:
    """Nobody reads the whole log in one breath."""
    with pytest.raises(AuditRefused):
        reader.entries(limit=limit)


def test_the_tail_is_the_end_in_order(reader: AuditReader) -> None:
    """Oldest first, also when more is asked for than there is."""
    assert [entry.index for entry in reader.tail(3)] == [26, 27, 28]
    assert [entry.index for entry in reader.tail(100)] == list(range(29))


def test_every_entry_is_proven_at_every_later_checkpoint(reader: AuditReader) -> None:
    """A proof names its own checkpoint and verifies with leaf and key alone."""
    for index in range(29):
        leaf_bytes = reader.entry(index).leaf_bytes
        assert reader.proof(index).verify(leaf_bytes, [SIGNER.verifier]).size == 29
        for size in SIZES:
            if index < size:
                assert reader.proof(index, size).verify(leaf_bytes, [SIGNER.verifier]).size == size
            else:
                with pytest.raises(EntryNotFound):
                    reader.proof(index, size)


def test_every_prefix_is_proven_consistent(reader: AuditReader) -> None:
    """Between any two checkpoints, and from sizes between them."""
    for new in SIZES:
        new_root = reader.checkpoint(new).checkpoint.root
        for old in [0, *SIZES]:
            if old <= new:
                proof = reader.consistency(old, new)
                verify_consistency(old, reader.checkpoint(old).checkpoint.root, new, new_root, proof)
    with pytest.raises(EntryNotFound):
        reader.consistency(30)
    with pytest.raises(EntryNotFound):
        reader.checkpoint(2)


def test_the_head_is_the_newest_signed_note(reader: AuditReader) -> None:
    """As signed, for anyone who has the key."""
    head = reader.head()
    assert SIGNER.verifier.open(head.note) == head.checkpoint
    assert head.checkpoint.size == 29


def test_what_has_no_end_is_found_by_index_alone(reader: AuditReader) -> None:
    """The last request still runs; the search does not read the leaves."""
    assert reader.open_subjects(PAIRING) == (OpenSubject("req-14", 27),)
    assert reader.open_subjects(PAIRING, from_index=28) == ()
    with plans_of(reader._engine) as plans:
        reader.open_subjects(PAIRING)
    lines = [line for statement, line in plans if "EXISTS" in statement]
    assert any("leaf_" in line for line in lines), lines
    assert not any(map(is_scan, lines)), lines


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE leaf SET leaf_bytes = CAST(replace(leaf_bytes, 'developer', 'operator_') AS BLOB) WHERE idx = 4",
        "UPDATE leaf SET leaf_hash = zeroblob(32) WHERE idx = 4",
        "UPDATE leaf SET idx = idx + 100 WHERE idx = 28",
    ],
)
def test_an_altered_entry_is_never_shown(tmp_path: Path, tamper: str) -> None:
    """Bytes, hash and place must fit before anything is returned."""
    path = tmp_path / "audit.db"
    build_log(path, EVENTS, [29])
    with attacker(path) as raw:
        raw.execute(tamper)
    with AuditReader(path) as reader, pytest.raises(AuditCorrupt):
        reader.entries()


def test_a_proof_over_a_missing_node_names_the_damage(tmp_path: Path) -> None:
    """Corruption is the auditor's finding, not the caller's mistake."""
    path = tmp_path / "audit.db"
    build_log(path, EVENTS, [29])
    with attacker(path) as raw:
        raw.execute("DELETE FROM node WHERE level = 1 AND idx = 1")
    with AuditReader(path) as reader, pytest.raises(AuditCorrupt):
        reader.proof(0)


def test_a_missing_log_is_not_made_by_reading_it(tmp_path: Path) -> None:
    """Reading is not creating."""
    with pytest.raises(LogMissing):
        AuditReader(tmp_path / "absent.db")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_each_commit_of_a_living_writer(open_writer: Callable[..., AuditWriter], place: LogPlace) -> None:
    """Receipt given, entry provable at once, from another connection."""
    writer = open_writer()
    with AuditReader(place.reader) as reader:
        for number in range(20):
            receipt = writer.submit(event_now(number)).result()
            entry = reader.entry(receipt.index)
            assert entry.leaf_hash.hex() == receipt.leaf_hash
            proof = reader.proof(receipt.index, receipt.tree_size)
            assert proof.verify(entry.leaf_bytes, [SIGNER.verifier]).size == receipt.tree_size
            assert abs(entry.leaf.event.ts_us - time.time_ns() // 1_000) < 60_000_000
