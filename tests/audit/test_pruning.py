"""Pruning: a recorded floor, readers who see nothing below it, proofs that stay, a verifier that asks who did it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_log_builder import PAIRING, SIGNER, event_now
from log_places import LogPlace, new_place

from audit.errors import AuditRefused, EntryPruned
from audit.event import Event, Floor, Pruned, SealedContent
from audit.export import export_log
from audit.reader import AuditReader
from audit.report import Place
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

OpenWriter = Callable[..., AuditWriter]
NUM_BEFORE = 700
FLOOR = Floor(Pruned.LEAF, 512)
LINKED_PAIRING = dataclasses.replace(PAIRING, opening_index_fact="admitted_index")


def prune_event() -> Event:
    """The act."""
    return dataclasses.replace(event_now(0, "log:pruned", "log"), facts={"by": "two people"})


def fill(writer: AuditWriter, num_leaves: int) -> None:
    """Entries with policies and contents; every tenth request ends far later."""
    futures = []
    for number in range(num_leaves):
        event = event_now(number)
        if number % 10 == 9 and number > 500:
            facts = {"admitted_index": number - 500, "outcome": "completed"}
            event = dataclasses.replace(event, kind="request:completed", subject=f"req-{number - 500}", facts=facts)
        elif number % 10 == 0:
            event = dataclasses.replace(event, facts={**event.facts, "policy_ids": ["p"]})
        contents = [SealedContent("prompt", "k", b"n" * 12, b"c%d" % number)] if number % 3 == 0 else []
        futures.append(writer.submit(event, contents))
    for future in futures:
        future.result()


@pytest.fixture
async def pruned(open_writer: OpenWriter, place: LogPlace) -> LogPlace:
    """A log of which the first 512 entries are gone."""
    writer = open_writer(config={"max_batch_len": 100, "sweep_len": 64})
    fill(writer, NUM_BEFORE)
    receipt = await writer.prune(prune_event(), FLOOR)
    assert receipt.index == NUM_BEFORE
    writer.submit(event_now(0, subject="after")).result()
    writer.close()
    return place


def count(place: LogPlace, query: str) -> int:
    """One number."""
    with place.master() as raw:
        return raw.column(query)[0]


async def test_the_rows_are_gone_and_the_rest_still_verifies(pruned: LogPlace, open_writer: OpenWriter):
    """Deleting goes on at the next opening until nothing is left below the floor; appending goes on above."""
    writer = open_writer()
    writer.submit(event_now(0, subject="later")).result()
    for number in range(20):
        writer.submit(event_now(number, subject=f"more-{number}")).result()
    writer.close()
    for table in ("leaf", "leaf_policy", "content"):
        assert count(pruned, f"SELECT count(*) FROM {table} WHERE idx < 512") == 0
    assert count(pruned, "SELECT count(*) FROM node WHERE level < 8 AND ((idx + 1) << level) <= 512") == 0
    assert count(pruned, "SELECT count(*) FROM node WHERE level >= 8") == 3
    assert count(pruned, "SELECT count(*) FROM checkpoint WHERE size < 512") == 0
    report = verify_log(pruned.reader, [SIGNER.verifier], LINKED_PAIRING)
    assert report.findings == ()
    assert "entries below 512 were pruned by a recorded act" in report.notes


def test_readers_see_nothing_below_the_floor_and_prove_everything_above(pruned: LogPlace):
    """A pruned entry is a `not found` that says so; every other entry proves in the newest tree."""
    with AuditReader(pruned.reader) as reader:
        for ask in (reader.entry, reader.proof, reader.consistency):
            with pytest.raises(EntryPruned, match="entries from 512 on"):
                ask(511)
        assert reader.entries(limit=1).entries[0].index == 512
        for index in range(512, NUM_BEFORE + 2):
            leaf_bytes = reader.entry(index).leaf_bytes
            assert reader.proof(index).verify(leaf_bytes, [SIGNER.verifier]).size == NUM_BEFORE + 2


@pytest.mark.parametrize("minimum_index", [0, 255, 300, 1024])
async def test_a_floor_that_is_no_block_or_above_the_end_is_refused(open_writer: OpenWriter, minimum_index: int):
    """The writer lives on."""
    writer = open_writer()
    fill(writer, 10)
    with pytest.raises(AuditRefused):
        await writer.prune(prune_event(), Floor(Pruned.LEAF, minimum_index))
    assert writer.submit(event_now(11)).result().index == 10


@pytest.mark.usefixtures("pruned")
async def test_a_floor_never_sinks(open_writer: OpenWriter):
    """Not even to where it is."""
    writer = open_writer()
    for minimum_index in (256, 512):
        with pytest.raises(AuditRefused, match="at 512 already"):
            await writer.prune(prune_event(), Floor(Pruned.LEAF, minimum_index))


async def test_content_can_go_while_its_entries_stay(open_writer: OpenWriter, place: LogPlace):
    """The two clocks of retention: below the content floor the leaf still says what was there."""
    writer = open_writer()
    fill(writer, 30)
    await writer.prune(prune_event(), Floor(Pruned.CONTENT, 20))
    writer.submit(event_now(1, subject="after")).result()
    writer.close()
    assert count(place, "SELECT count(*) FROM content WHERE idx < 20") == 0
    with AuditReader(place.reader) as reader:
        assert reader.content(3, "prompt") is None
        assert reader.content(21, "prompt") is not None
        assert "contents" in reader.entry(3).leaf.event.facts
    assert verify_log(place.reader, [SIGNER.verifier], LINKED_PAIRING).findings == ()


FORGERIES = {
    "entries cut off at the front": "DELETE FROM leaf WHERE idx < 600",
    "a floor moved up": "UPDATE pruning SET minimum_index = 768; DELETE FROM leaf WHERE idx < 768",
    "a floor moved up, all of it": (
        "UPDATE pruning SET minimum_index = 768; DELETE FROM leaf WHERE idx < 768;"
        "DELETE FROM content WHERE idx < 768; DELETE FROM leaf_policy WHERE idx < 768;"
        "DELETE FROM checkpoint WHERE size < 768"
    ),
    "a floor said to be recorded elsewhere": "UPDATE pruning SET idx = idx + 1",
    "a floor taken away": "DELETE FROM pruning",
    "a node that stands for pruned entries": "UPDATE node SET hash = {zeros} WHERE level = 9",
    "a node that stands for pruned entries, missing": "DELETE FROM node WHERE level = 9",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_pruning_that_nobody_recorded_is_found(pruned: LogPlace, forgery: str):
    """Whoever owns the database can delete rows; only the key can say that it was meant."""
    with pruned.attacker() as raw:
        raw.executescript(FORGERIES[forgery].format(zeros=raw.zeros(32)))
    assert not verify_log(pruned.reader, [SIGNER.verifier], LINKED_PAIRING).ok


async def test_an_act_that_let_contents_go_hides_no_missing_entry(open_writer: OpenWriter, place: LogPlace):
    """A forged floor of the other kind, at the same index and recorded by an entry that it makes vanish."""
    writer = open_writer()
    fill(writer, NUM_BEFORE)
    await writer.prune(prune_event(), Floor(Pruned.CONTENT, 512))
    writer.close()
    with place.attacker() as raw:
        raw.executescript(
            "INSERT INTO pruning VALUES ('leaf', 512, 5); DELETE FROM leaf WHERE idx < 512;"
            "DELETE FROM content WHERE idx < 512; DELETE FROM leaf_policy WHERE idx < 512;"
            "DELETE FROM checkpoint WHERE size < 512; DELETE FROM node WHERE level < 8 AND idx < 512 >> level"
        )
    findings = verify_log(place.reader, [SIGNER.verifier], LINKED_PAIRING).findings
    assert "no entry of 701 recorded the leaf floor 512" in {finding.what for finding in findings}


def test_a_checkpoint_kept_from_before_is_said_to_prove_nothing_any_more(pruned: LogPlace):
    """It lies among what is gone; a later one is held against the log as ever."""
    with AuditReader(pruned.reader) as reader:
        kept = reader.checkpoint(NUM_BEFORE).note
    report = verify_log(pruned.reader, [SIGNER.verifier], LINKED_PAIRING, known_notes=[kept])
    assert report.findings == ()
    with pruned.attacker() as raw:
        raw.execute(f"DELETE FROM leaf WHERE idx >= {NUM_BEFORE}")
        raw.execute(f"DELETE FROM checkpoint WHERE size > {NUM_BEFORE}")
    places = {finding.place for finding in verify_log(pruned.reader, [SIGNER.verifier], LINKED_PAIRING).findings}
    assert Place.BESIDE in places  # the floor's own entry is gone with the tail


def test_a_pruned_log_exports_and_its_export_verifies(pruned: LogPlace, tmp_path: Path):
    """C2SP tlog-tiles with a minimum index: bundles and lowest tiles below it are not there, all others are."""
    folder = tmp_path / "export"
    export_log(pruned.reader, folder, SIGNER.verifier)
    log = folder / "tlog"
    names = {path.relative_to(log).as_posix() for path in log.rglob("*") if path.is_file()}
    assert "tile/entries/001" not in names
    assert "tile/0/001" not in names
    assert {"tile/entries/002.p/190", "tile/0/002.p/190", "tile/1/000.p/2"} <= names
    report = verify_log(folder, [SIGNER.verifier], LINKED_PAIRING)
    assert report.findings == ()
    assert report.num_leaves == NUM_BEFORE + 2 - 512
    (folder / "tlog/tile/entries/002.p/190").unlink()
    assert not verify_log(folder, [SIGNER.verifier], LINKED_PAIRING).ok


def test_bundles_missing_without_a_recorded_act_are_found(open_writer: OpenWriter, place: LogPlace, tmp_path: Path):
    """An export whose front was thrown away is no pruned log."""
    writer = open_writer()
    fill(writer, NUM_BEFORE)
    writer.close()
    folder = tmp_path / "export"
    export_log(place.reader, folder, SIGNER.verifier)
    for name in ("tile/entries/000", "tile/0/000", "tile/entries/001", "tile/0/001"):
        (folder / "tlog" / name).unlink()
    findings = verify_log(folder, [SIGNER.verifier], LINKED_PAIRING).findings
    assert {finding.where for finding in findings if finding.place is Place.FILE} >= {"tile/entries/000", "tile/0/001"}


async def test_sweeping_much_does_not_fill_the_disk_with_its_journal(tmp_path: Path):
    """What is deleted is written to the journal first; it is moved into the file on the way, as at commits."""
    path = new_place("sqlite", tmp_path, None).writer
    assert isinstance(path, Path)
    writer = AuditWriter.open(WriterConfig(path, "n", "b", min_free_bytes=0, sweep_len=1), [SIGNER])
    fill(writer, NUM_BEFORE)
    before = path.with_name("audit.db-wal").stat().st_size
    writer.submit(event_now(0, subject="before")).result()
    await writer.prune(prune_event(), FLOOR)
    while writer._log.has_pruned_rows:
        await writer.append(event_now(0, subject="meanwhile"))
    after = path.with_name("audit.db-wal").stat().st_size
    writer.close()
    assert after < before + 2**21
