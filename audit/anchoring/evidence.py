"""Every head that somebody kept: folders of a sink, notes, and lines of a syslog that was captured to a file.

Nothing found here is believed for lying here: a head counts when one of the log's keys signed it.  What is of another
log, unsigned or damaged is counted and named, so that nobody takes a heap of rubbish for an anchor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.anchoring.head import CHECKPOINT_SUFFIX
from audit.anchoring.syslog_line import notes_in
from audit.checkpoint import Checkpoint, LogVerifier, open_checkpoint
from audit.errors import ProofRefused

_MAX_NOTE_BYTES = 2**17
_LINES_AT_ONCE_BYTES = 2**22
_MAX_NEWEST = 2_048
_MAX_SPREAD = 2_048
"""Of the older heads in a folder every n-th is taken, so that a year of minutes is read in seconds."""
_EXPORTED = "checkpoint"
_SHOWN_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class Anchor:
    """A signed head from elsewhere."""

    note: str
    source: str
    """The file that holds it."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """What was found in one place."""

    anchors: tuple[Anchor, ...]
    """Signed by one of the log's keys, smallest first."""
    notes: tuple[str, ...]
    """Sentences on what was left out."""


def read_anchors(place: Path, verifiers: Sequence[LogVerifier]) -> Anchors:
    """Return every head of this log in a folder or a file.

    Raises:
        OSError: it cannot be read.
        ProofRefused: it holds none, so it is no evidence of anything.
    """
    if not place.is_dir():
        return _sorted(place, _in_file(place), verifiers, left_out=0)
    files = sorted(_checkpoint_files(place), key=_size_in_name)
    taken = _spread(files)
    texts = ((_start_of(path).decode(errors="replace"), str(path)) for path in taken)
    return _sorted(place, texts, verifiers, left_out=len(files) - len(taken))


def _sorted(
    place: Path, texts: Iterator[tuple[str, str]], verifiers: Sequence[LogVerifier], *, left_out: int
) -> Anchors:
    found: dict[str, tuple[int, Anchor]] = {}
    refused: list[str] = []
    for text, source in texts:
        try:
            head = open_checkpoint(text, verifiers)
        except ProofRefused as error:
            refused.append(f"{source}: {error.what}")
            continue
        found.setdefault(text, (head.size, Anchor(text, source)))
    if not found:
        reason = f"; {refused[0]}" if refused else ""
        raise ProofRefused(f"{place} holds no head of this log{reason}")
    notes = [f"left out of {place}: {what}" for what in refused[:_SHOWN_REFUSALS]]
    if len(refused) > _SHOWN_REFUSALS:
        notes.append(f"left out of {place}: {len(refused) - _SHOWN_REFUSALS} more that are not heads of this log")
    if left_out:
        notes.append(f"{place}: {left_out} older heads lie between those that were read")
    anchors = sorted(found.values(), key=lambda pair: pair[0])
    return Anchors(tuple(anchor for _, anchor in anchors), tuple(notes))


def _in_file(path: Path) -> Iterator[tuple[str, str]]:
    """Read a note, or lines; a captured syslog may be of any length."""
    with path.open("rb") as file:
        start = file.read(_MAX_NOTE_BYTES + 1)
        text = start.decode(errors="replace")
        if len(start) <= _MAX_NOTE_BYTES and _is_note(text):
            yield text, str(path)
            return
        number = 0
        file.seek(0)
        while lines := file.readlines(_LINES_AT_ONCE_BYTES):
            for line in lines:
                number += 1
                for note in notes_in(line.decode(errors="replace")):
                    yield note, f"{path} line {number}"


def _is_note(text: str) -> bool:
    try:
        Checkpoint.from_text(text.rpartition("\n\n")[0] + "\n")
    except ProofRefused:
        return False
    return True


def _checkpoint_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if (path.name.endswith(CHECKPOINT_SUFFIX) or path.name == _EXPORTED) and path.is_file():
            yield path


def _size_in_name(path: Path) -> tuple[int, str]:
    stem = path.name.removesuffix(CHECKPOINT_SUFFIX)
    return (int(stem), str(path)) if stem.isascii() and stem.isdigit() and len(stem) < 20 else (1 << 63, str(path))  # noqa: PLR2004 - digits of 2**63


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_NOTE_BYTES + 1)


def _spread(files: Sequence[Path]) -> list[Path]:
    """Choose, folder by folder: a medium holds several logs, and the larger one's heads must not hide ours."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    taken: list[Path] = []
    for kept in folders.values():
        older, newest = kept[:-_MAX_NEWEST], kept[-_MAX_NEWEST:]
        step = -(-len(older) // _MAX_SPREAD) or 1
        taken += [*older[::step], *newest]
    return taken


def heads_of(anchors: Sequence[Anchor], verifiers: Sequence[LogVerifier]) -> list[tuple[Checkpoint, Anchor]]:
    """Give the checkpoint of each anchor, smallest first."""
    return sorted(((open_checkpoint(one.note, verifiers), one) for one in anchors), key=lambda pair: pair[0].size)
