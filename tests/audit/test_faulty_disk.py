"""A disk that fails, fills up or loses power at any call that a log's life makes: nothing acknowledged is lost.

The life (`faulty_disk_child.py`) is the product's own: create, open, append, move the journal, close, and once more.
Each of its calls to the disk is counted; a fault is one call of one life.  The suite draws some faults, the long lane
(`make faults`) takes every call with every kind of fault and prints the table.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from audit_log_builder import SIGNER, event_now
from disk_model import DiskModel, Image
from faulty_disk import Fault, FaultyDisk, How, Life, NoCompilerError, Op, Record

from audit.reader import AuditReader
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

NUM_RECEIPTS = 16
NUM_SAMPLED_FAULTS = 48
NUM_SAMPLED_CUTS = 60
TORN_IMAGES_PER_CALL = 2
WAYS_TO_FAIL = {
    "ENOSPC": (errno.ENOSPC, How.NOT_DONE, False),
    "ENOSPC from here on": (errno.ENOSPC, How.NOT_DONE, True),
    "EIO": (errno.EIO, How.NOT_DONE, False),
    "EIO, and yet done": (errno.EIO, How.DONE, False),
    "EIO from here on": (errno.EIO, How.NOT_DONE, True),
    "half written, then ENOSPC": (errno.ENOSPC, How.SHORT, True),
    "half written": (0, How.SHORT, False),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    """The disk, ready to be broken."""
    try:
        with FaultyDisk.started(tmp_path_factory.mktemp("disk")) as disk:
            yield disk
    except NoCompilerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the lives are lived."""
    return emptied(tmp_path / "life")


def emptied(folder: Path) -> Path:
    """Give an empty folder in the place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def ways_for(call: Record) -> list[str]:
    """Which faults a call can have: only what has two halves can be cut short."""
    return [name for name, (_, how, _) in WAYS_TO_FAIL.items() if len(call.data) > 1 or how is not How.SHORT]


def fault_of(nth: int, way: str) -> Fault:
    """The nth call fails in this way."""
    error, how, stays = WAYS_TO_FAIL[way]
    return Fault(nth, error, how, stays)


def receipts_in(trace: Sequence[Record]) -> list[str]:
    """What was acknowledged in a part of a life."""
    return Life(0, tuple(trace)).receipts


def assert_holds(path: Path, receipts: Sequence[str], *, created: bool) -> None:
    """The log is there whole with every receipt, takes the next entry, and verifies; or nothing was promised yet."""
    if not path.exists():
        assert not created
        assert not receipts
        return
    writer = AuditWriter.open(WriterConfig(path, "node-1", "boot-2", min_free_bytes=0), [SIGNER])
    size = writer.head.size
    assert writer.submit(event_now(0, "log:reopened", "after")).result().index == size
    writer.close()
    report = verify_log(path, [SIGNER.verifier], None)
    assert report.findings == ()
    assert report.num_leaves == size + 1
    with AuditReader(path) as reader:
        for receipt in receipts:
            index, leaf_hash, subject = receipt.split()
            assert int(index) < size, f"{receipt} was acknowledged and is lost"
            entry = reader.entry(int(index))
            assert (entry.leaf_hash.hex(), entry.leaf.event.subject) == (leaf_hash, subject)


def assert_image_holds(folder: Path, image: Image, trace: Sequence[Record]) -> None:
    """Put an image into a folder and hold it against what was acknowledged by then."""
    for name, content in image.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    created = any(record.op is Op.MARK and record.name == "created" for record in trace)
    assert_holds(folder / "audit.db", receipts_in(trace), created=created)


def images_of(life: Life, folder: Path, draw: random.Random) -> Iterator[tuple[int, Image]]:
    """Every state that a kill or a power cut can leave, with the number of calls and marks before it; each once."""
    model = DiskModel(folder)
    seen: set[int] = set()
    for num_records, record in enumerate(life.trace, start=1):
        model.apply(record)
        torn = [model.after_torn_power_cut(draw) for _ in range(TORN_IMAGES_PER_CALL)]
        for image in (model.after_kill(), *model.after_power_cut(), *torn):
            state = _state_of(image, life.trace[:num_records])
            if state not in seen:
                seen.add(state)
                yield num_records, image


def test_an_undisturbed_life_ends_well(disk: FaultyDisk, folder: Path) -> None:
    """Without this, no fault below would prove anything; and the model holds what the disk holds."""
    life = disk.live(folder)
    assert life.exit_status == 0
    assert len(life.receipts) == NUM_RECEIPTS
    assert life.marks[-2:] == ["closed None", "end"]
    flushed = {Path(call.name).name for call in life.calls if call.op is Op.SYNC}
    assert {"audit.db", "audit.db-wal", folder.name} <= flushed
    model = DiskModel(folder)
    for record in life.trace:
        model.apply(record)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert model.after_kill() == left
    assert all(image["audit.db"] == left["audit.db"] for image in model.after_power_cut())


def test_power_cut_at_any_call_loses_nothing_acknowledged(disk: FaultyDisk, folder: Path, tmp_path: Path) -> None:
    """What was not flushed is gone, or there in part, sector by sector: the log opens, verifies, has every receipt."""
    draw = random.Random(20261124)
    life = disk.live(folder)
    images = list(images_of(life, folder, draw))
    for num_records, image in draw.sample(images, NUM_SAMPLED_CUTS):
        assert_image_holds(emptied(tmp_path / "image"), image, life.trace[:num_records])


@pytest.mark.slow
def test_power_cut_at_every_call_loses_nothing_acknowledged(disk: FaultyDisk, folder: Path, tmp_path: Path) -> None:
    """All of them."""
    life = disk.live(folder)
    num_images = 0
    for num_records, image in images_of(life, folder, random.Random(20261125)):
        assert_image_holds(emptied(tmp_path / "image"), image, life.trace[:num_records])
        num_images += 1
    print(f"\n{len(life.calls)} calls, {num_images} different states after a kill or a power cut: 0 violations")


def test_the_power_cut_finds_a_log_that_flushes_too_little(disk: FaultyDisk, folder: Path, tmp_path: Path) -> None:
    """With SQLite's `synchronous=NORMAL` receipts are lost, and the instrument says so."""
    life = disk.live(folder, synchronous="NORMAL")
    first_receipt = next(place for place, record in enumerate(life.trace) if record.name.startswith("receipt "))
    model = DiskModel(folder)
    for record in life.trace[: first_receipt + 1]:
        model.apply(record)
    with pytest.raises(AssertionError, match="was acknowledged and is lost"):
        assert_image_holds(tmp_path, next(model.after_power_cut()), life.trace[: first_receipt + 1])


def live_with(disk: FaultyDisk, folder: Path, fault: Fault) -> str:
    """Live with one fault and hold what is left against the laws; return how the life ended."""
    life = disk.live(emptied(folder), fault)
    assert life.exit_status == 0, fault
    assert not life.marks[-2].startswith("raised"), life.marks[-2]
    failed = [place for place, record in enumerate(life.trace) if record.failed_with > 0]
    if fault.how is How.SHORT and not fault.stays:
        assert len(life.receipts) == NUM_RECEIPTS, "a write that was cut short is gone on with"
    else:
        assert failed, f"{fault} never happened"
        if _went_on(life, failed[0]):
            assert_every_receipt_outlives_power(life, folder, failed[0])
    last = len(life.trace) - 1
    assert_every_receipt_outlives_power(life, folder, last)
    assert_holds(folder / "audit.db", life.receipts, created="created" in life.marks)
    return life.marks[-2].partition(":")[0].partition("'")[0]


def _went_on(life: Life, failed: int) -> bool:
    """Tell whether anything asked after the fault was acknowledged, which only a harmless fault may allow."""
    asked_before = {record.name.removeprefix("asked ") for record in life.trace[:failed]}
    late = [receipt for receipt in receipts_in(life.trace[failed:]) if receipt.split()[2] not in asked_before]
    call = life.trace[failed]
    is_flush_of_content = call.op is Op.SYNC and Path(call.name).name.startswith("audit.db")
    assert not (late and is_flush_of_content), f"acknowledged after {call}: {late}"
    assert not (late and call.op in (Op.WRITE, Op.TRUNCATE)), f"acknowledged after {call}: {late}"
    return bool(late)


def assert_every_receipt_outlives_power(life: Life, folder: Path, first: int) -> None:
    """At each mark from there on the power goes, and what was acknowledged is there."""
    model = DiskModel(folder)
    seen: set[int] = set()
    for place, record in enumerate(life.trace):
        model.apply(record)
        if place < first or record.op is not Op.MARK:
            continue
        trace = life.trace[: place + 1]
        for image in model.after_power_cut():
            state = _state_of(image, trace)
            if state not in seen:
                seen.add(state)
                assert_image_holds(emptied(folder.with_name("image")), image, trace)


def _state_of(image: Image, trace: Sequence[Record]) -> int:
    """Two images of one state with the same promises prove the same."""
    return hash((tuple(sorted(image.items())), len(receipts_in(trace))))


def test_a_fault_at_any_call_stops_the_log_and_loses_nothing(disk: FaultyDisk, folder: Path) -> None:
    """Some calls of each kind, each in some way."""
    draw = random.Random(20261124)
    calls = disk.live(folder).calls
    by_kind: dict[tuple[Op, str], list[int]] = {}
    for nth, call in enumerate(calls):
        if call.failed_with == 0 and call.name != str(folder):
            by_kind.setdefault((call.op, call.name), []).append(nth)
    drawn = [draw.choice(by_kind[kind]) for kind in sorted(by_kind, key=str)]
    drawn += draw.choices([nth for every in by_kind.values() for nth in every], k=NUM_SAMPLED_FAULTS - len(drawn))
    for nth in drawn:
        live_with(disk, folder, fault_of(nth, draw.choice(ways_for(calls[nth]))))


def test_a_folder_that_cannot_be_flushed_costs_no_receipt(disk: FaultyDisk, folder: Path) -> None:
    """SQLite passes over the error; the name of a new journal, and all that is in it, would go with the power."""
    calls = disk.live(folder).calls
    flushes = [nth for nth, call in enumerate(calls) if call.op is Op.SYNC and call.name == str(folder)]
    assert len(flushes) >= 2
    for nth in flushes:
        live_with(disk, folder, fault_of(nth, "EIO"))


@pytest.mark.slow
def test_every_fault_at_every_call_stops_the_log_and_loses_nothing(disk: FaultyDisk, folder: Path) -> None:
    """All calls, all ways, and a table of them."""
    calls = disk.live(folder).calls
    ends: dict[tuple[str, str], Counter[str]] = {}
    for nth, call in enumerate(calls):
        kind = call.op.name.lower(), Path(call.name.split("\n")[-1]).name
        for way in ways_for(call):
            ends.setdefault(kind, Counter())[live_with(disk, folder, fault_of(nth, way))] += 1
    num_lives = sum(counts.total() for counts in ends.values())
    print(f"\n{num_lives} lives with one fault each at {len(calls)} calls: 0 violations")
    for (op, name), counts in sorted(ends.items()):
        print(f"{op:8} {name:20} {', '.join(f'{end}: {count}' for end, count in counts.most_common())}")
