"""Rollback, truncation and fork, each named with the exact entry by the anchors that a sink left somewhere else."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from anchored_logs import Tree, numbered
from audit_log_builder import SIGNER, build_log, make_event, request_events
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.anchoring.directory import MARKER, DirectorySink
from audit.anchoring.evidence import Anchor, read_anchors
from audit.anchoring.head import SignedHead
from audit.checkpoint import LogSigner
from audit.cosignature import Cosigner, add_lines
from audit.errors import AuditCorrupt, KeyRefused, LogMissing, ProofRefused
from audit.export import export_log
from audit.reader import AuditReader
from audit.report import Place
from audit.verification.divergence import Comparison, compare_copies, head_note_of
from audit.verification.witnessed import Quorum
from audit.verify import CUT_TAIL_NOTE, verify_log

VERIFIERS = [SIGNER.verifier]
EVENTS = request_events(30)
BATCH_LENS = [3, 4, 4, 10, 20, 18]
SIZES = [3, 7, 11, 21, 41, 59]
ONE = Cosigner("w.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
TWO = Cosigner("w.example/two", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
AT_S = 1_763_964_000


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    """A log, and a medium to which a sink has carried every head."""
    path = tmp_path / "honest.db"
    build_log(path, EVENTS, BATCH_LENS)
    medium = tmp_path / "medium"
    medium.mkdir()
    (medium / MARKER).touch()
    sink = DirectorySink(medium)
    with AuditReader(path) as reader:
        for size in SIZES:
            signed = reader.checkpoint(size)
            sink.anchor(SignedHead(signed.checkpoint, signed.note), time.monotonic() + 60)
    return path


def rebuilt(folder: Path, changed: int, num_events: int = len(EVENTS), batches: list[int] | None = None) -> Path:
    """Give what the owner of the log's key can make: another history, sound in itself."""
    path = folder / "forged.db"
    events = [*EVENTS[:changed], make_event(999, "request:denied"), *EVENTS[changed + 1 :]][:num_events]
    build_log(path, events, batches or BATCH_LENS)
    return path


@pytest.fixture
def medium(honest: Path) -> Path:
    """What was carried away from the honest log."""
    return honest.with_name("medium")


def found(path: Path, medium: Path) -> list[tuple[Place, int | None]]:
    """Verify against a medium."""
    anchors = read_anchors(medium, VERIFIERS).anchors
    report = verify_log(path, VERIFIERS, None, anchors=anchors)
    return [(finding.place, finding.index) for finding in report.findings]


def test_a_sound_log_stands_against_its_anchors(honest: Path, tmp_path: Path) -> None:
    """As a file and as an export; the note on cut tails is gone, because there is something to see them by."""
    anchors = read_anchors(tmp_path / "medium", VERIFIERS).anchors
    assert [Path(one.source).name for one in anchors] == [f"{size}.checkpoint" for size in SIZES]
    export_log(honest, tmp_path / "pack", SIGNER.verifier)
    for path in (honest, tmp_path / "pack"):
        report = verify_log(path, VERIFIERS, None, anchors=anchors)
        assert report.ok
        assert CUT_TAIL_NOTE not in report.notes


@pytest.mark.parametrize(("num_batches", "size"), list(enumerate(SIZES[:-1], start=1)))
def test_an_old_backup_is_named_with_the_first_missing_entry(
    medium: Path, tmp_path: Path, num_batches: int, size: int
) -> None:
    """It verifies by itself; the newest anchor says how much is gone, and where the log went back to."""
    old = tmp_path / "old.db"
    build_log(old, EVENTS[:size], BATCH_LENS[:num_batches])
    assert verify_log(old, VERIFIERS, None).ok
    assert found(old, medium) == [(Place.TRUNCATED, size)]
    report = verify_log(old, VERIFIERS, None, anchors=read_anchors(medium, VERIFIERS).anchors)
    assert f"entries {size} to 58 are missing" in report.findings[0].what
    assert "rolled back to that head" in report.findings[0].what
    assert "59.checkpoint" in report.findings[0].what


@pytest.mark.parametrize("changed", [0, 2, 3, 20, 40, 41, 58])
def test_a_fork_is_bounded_by_the_anchors_and_exact_with_both_trees(honest: Path, tmp_path: Path, changed: int) -> None:
    """From anchors alone the two sizes between which it lies; with the other copy at hand the entry itself."""
    forged = rebuilt(tmp_path, changed)
    assert verify_log(forged, VERIFIERS, None).ok
    after = max([0, *(size for size in SIZES if size <= changed)])
    assert found(forged, tmp_path / "medium") == [(Place.FORK, after)]
    assert compare_copies(honest, forged) == Comparison(changed, one_is_longer=False, compared_from=0)
    export_log(forged, tmp_path / "pack", SIGNER.verifier)
    assert compare_copies(tmp_path / "pack", honest) == Comparison(changed, one_is_longer=False, compared_from=0)


def test_a_fork_that_is_shorter_is_both(medium: Path, tmp_path: Path) -> None:
    """The first place where it is another history, and the first entry that it lacks."""
    forged = rebuilt(tmp_path, 8, 21, BATCH_LENS[:4])
    assert found(forged, medium) == [(Place.FORK, 7), (Place.TRUNCATED, 21)]


def test_two_copies_of_one_history_differ_in_nothing_but_length(honest: Path, tmp_path: Path) -> None:
    """Equal ones in nothing at all."""
    old = tmp_path / "old.db"
    build_log(old, EVENTS[:21], BATCH_LENS[:4])
    shutil.copy(honest, tmp_path / "copy.db")
    assert compare_copies(honest, tmp_path / "copy.db").first_difference is None
    assert compare_copies(honest, old) == Comparison(21, one_is_longer=True, compared_from=0)
    with AuditReader(old) as reader:
        assert head_note_of(old) == reader.head().note
    with pytest.raises(LogMissing):
        compare_copies(honest, tmp_path / "gone")


def test_a_copy_that_cannot_be_read_to_its_end_is_no_divergence(honest: Path, tmp_path: Path) -> None:
    """The damaged file is named."""
    export_log(honest, tmp_path / "pack", SIGNER.verifier)
    bundle = next((tmp_path / "pack" / "tlog" / "tile" / "entries").rglob("59"))
    bundle.write_bytes(bundle.read_bytes()[:-1])
    with pytest.raises(AuditCorrupt, match="pack, entry 58"):
        compare_copies(honest, tmp_path / "pack")


def test_two_anchors_that_contradict_one_another_show_it(honest: Path, tmp_path: Path) -> None:
    """One key signed two heads of one size: whichever log is held against both, the other one is named."""
    forged = rebuilt(tmp_path, 8)
    with AuditReader(honest) as one, AuditReader(forged) as other:
        both = [Anchor(one.checkpoint(11).note, "ours"), Anchor(other.checkpoint(11).note, "theirs")]
    for anchors in (both, both[::-1]):
        for path, named in ((honest, "theirs"), (forged, "ours")):
            [finding] = verify_log(path, VERIFIERS, None, anchors=anchors).findings
            assert (finding.place, finding.index) == (Place.FORK, 0)
            assert named in finding.what


def test_rubbish_among_anchors_is_said_and_takes_nothing_from_them(medium: Path, tmp_path: Path) -> None:
    """Another log's heads, an unsigned one, noise: left out by name; a place with nothing else is refused."""
    stranger = Tree(numbered(3), [LogSigner.from_seed("stranger.example", bytes(32))])
    (medium / "3.checkpoint").write_text(stranger.head(3).note)
    (medium / "9.checkpoint").write_bytes(b"\xff\xfe")
    read = read_anchors(medium, VERIFIERS)
    assert len(read.anchors) == len(SIZES)
    assert len(read.notes) == 2
    for name in ("3.checkpoint", "9.checkpoint"):
        only = tmp_path / f"only-{name}"
        only.mkdir()
        shutil.copy(medium / name, only / name)
        with pytest.raises(ProofRefused, match="holds no head of this log"):
            read_anchors(only, VERIFIERS)


def test_the_heads_of_a_larger_log_hide_none_of_ours(tmp_path: Path) -> None:
    """One medium, written once, under two logs: what is left out is left out of each log's own folder."""
    tree = Tree(numbered(3))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    for size in (1, 2, 3):
        (ours / f"{size}.checkpoint").write_text(tree.head(size).note)
    for size in range(4, 4_200):
        (theirs / f"{size}.checkpoint").touch()
    read = read_anchors(tmp_path, VERIFIERS)
    assert [Path(one.source).name for one in read.anchors] == ["1.checkpoint", "2.checkpoint", "3.checkpoint"]


def test_a_year_of_anchors_is_read_from_its_newest_and_a_spread_of_the_others(tmp_path: Path) -> None:
    """Bounded work; the newest is always among them, and what was left out is said."""
    note = Tree(numbered(3)).head(3).note
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1, 6001):
        (folder / f"{number}.checkpoint").write_text(note)
    read = read_anchors(folder, VERIFIERS)
    assert read.notes == (f"{folder}: 1976 older heads lie between those that were read",)


def test_a_quorum_is_met_by_the_newest_head_that_enough_witnesses_saw(honest: Path) -> None:
    """One saw 41 entries, both saw 21; what nobody saw is no finding, what too few saw is one."""
    with AuditReader(honest) as reader:
        heads = [reader.checkpoint(21), reader.checkpoint(41)]
    both, one = (SignedHead(head.checkpoint, head.note) for head in heads)
    anchors = [
        Anchor(add_lines(both.note, [w.cosign(both.checkpoint.text(), AT_S) for w in (ONE, TWO)]), "a"),
        Anchor(add_lines(one.note, [ONE.cosign(one.checkpoint.text(), AT_S)]), "b"),
    ]
    witnesses = (ONE.verifier, TWO.verifier)
    for required, size in ((1, 41), (2, 21)):
        report = verify_log(honest, VERIFIERS, None, anchors=anchors, quorum=Quorum(witnesses, required))
        assert report.ok
        assert f"(size {size})" in report.notes[-1]
        assert "w.example/one at 2025-11-24T06:00:00Z" in report.notes[-1]
    report = verify_log(honest, VERIFIERS, None, anchors=anchors[1:], quorum=Quorum(witnesses, 2))
    assert [finding.place for finding in report.findings] == [Place.WITNESS]
    forged = _resigned(Anchor(anchors[0].note.replace(both.note.split("\n")[2], one.note.split("\n")[2]), "a"))
    with pytest.raises(ProofRefused, match=r"a: the cosignature by w\.example/one"):
        verify_log(honest, VERIFIERS, None, anchors=[forged], quorum=Quorum(witnesses, 1))


def _resigned(anchor: Anchor) -> Anchor:
    text = anchor.note.rpartition("\n\n")[0] + "\n"
    lines = [line for line in anchor.note.rpartition("\n\n")[2].splitlines() if "w.example" in line]
    return Anchor(f"{text}\n{SIGNER.signature_line(text)}{chr(10).join(lines)}\n", anchor.source)


@pytest.mark.parametrize(("witnesses", "required"), [((), 1), ((ONE.verifier,), 0), ((ONE.verifier,), 2)])
def test_a_quorum_that_means_nothing_is_refused(witnesses: tuple, required: int) -> None:
    """Nobody, none of them, more than there are, and one key twice."""
    with pytest.raises(KeyRefused):
        Quorum(witnesses, required)
    with pytest.raises(KeyRefused):
        Quorum((ONE.verifier, ONE.verifier), 1)
