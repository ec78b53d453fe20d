"""Whether entries or sealed contents below an index may go: a pure decision, and the reading of what it rests on.

A prefix goes, never a single entry; entries go by whole blocks of 256, as C2SP tlog-tiles prunes.  What is asked is
refused where it reaches what is too young for the floor, what a hold may reach, what the appliance must still remember
at its next start, or what no verified export has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from appliance.audit_trail import PAIRING, Kind
from appliance.keeping.erasure import open_erasures
from appliance.keeping.holds import Hold, living_holds, named
from appliance.keeping.leaves import entries_of
from appliance.keeping.retention import DAY_US
from appliance.keeping.retention_profiles import RetentionFloor
from audit.beside import BLOCK_LEN
from audit.checkpoint import LogVerifier
from audit.errors import EntryNotFound
from audit.event import Pruned
from audit.reader import AuditReader, EntryFilter
from audit.verify import verify_log

_PIECE_BYTES = 2**20
_REMEMBERED = (Kind.RETENTION_SET, Kind.POLICY_LOADED, Kind.MODEL_LOADED)
"""The newest of each is what a start compares itself with."""


@dataclass(frozen=True, slots=True)
class PruneAsk:
    """All below `below`, that index excluded."""

    what: Pruned
    below: int


@dataclass(frozen=True, slots=True)
class VerifiedExport:
    """A tlog-tiles folder that verifies by the log's key and is this log."""

    digest: str
    """SHA-256 over the lines that `sha256sum` prints, in the order of the names."""
    size: int


@dataclass(frozen=True, slots=True)
class UnverifiedExport:
    """Why a folder is none."""

    why: str


ExportCheck: TypeAlias = "VerifiedExport | UnverifiedExport"


@dataclass(frozen=True, slots=True)
class PruneSituation:
    """What the log and the clock say."""

    size: int
    pruned_below: int
    """The floor of pruning so far."""
    young_from: int
    """First index that is younger than the floor of retention; `size` where all are older."""
    holds: tuple[Hold, ...]
    needed_from: int | None
    """Lowest index that a start must still read."""


@dataclass(frozen=True, slots=True)
class MayPrune:
    """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class MustStay:
    """What stands in the way: a stable code, and in words."""

    code: str
    why: str


PruneVerdict: TypeAlias = "MayPrune | MustStay"


def may_prune(ask: PruneAsk, situation: PruneSituation, export: ExportCheck) -> PruneVerdict:
    """Say whether this may go now."""
    limit = prunable_below(ask.what, situation)
    reaching = [hold for hold in situation.holds if hold.held_from < ask.below]
    checks: tuple[tuple[bool, str, str], ...] = (
        (ask.below > situation.size, "beyond_the_log", f"the log has {situation.size} entries"),
        (ask.below <= situation.pruned_below, "nothing_to_prune", f"all below {situation.pruned_below} is gone"),
        (
            ask.what is Pruned.LEAF and ask.below % BLOCK_LEN != 0,
            "not_whole_blocks",
            f"entries go by whole blocks: a multiple of {BLOCK_LEN}",
        ),
        (bool(reaching), "under_hold", f"{named(reaching)} beats retention; release it first, by two people"),
        (
            ask.below > situation.young_from,
            "below_retention",
            f"entry {situation.young_from} is younger than the floor of retention",
        ),
        (ask.below > limit, "still_needed", f"the next start still reads entry {limit}, and some after it"),
    )
    for stands, code, why in checks:
        if stands:
            return MustStay(code, why)
    if isinstance(export, UnverifiedExport):
        return MustStay("export_unverified", export.why)
    if export.size < ask.below:
        return MustStay("export_too_short", f"the export ends before entry {export.size}")
    return MayPrune()


def prunable_below(what: Pruned, situation: PruneSituation) -> int:
    """Give the index below which all could go, were there an export; it may lie at or below what is gone already."""
    limit = min([situation.size, situation.young_from, *(hold.held_from for hold in situation.holds)])
    if what is Pruned.LEAF:
        # Of a hold its own leaf must stay too: who could say that it lives, without it?
        remembered = [hold.index for hold in situation.holds]
        remembered += [] if situation.needed_from is None else [situation.needed_from]
        limit = min([limit, *remembered])
        limit -= limit % BLOCK_LEN
    return limit


def read_prune_situation(
    reader: AuditReader,
    what: Pruned,
    floor: RetentionFloor,
    now_us: int,
    key_lives: Callable[[str], bool],
) -> PruneSituation:
    """Read what a decision rests on.

    Args:
        reader: the log.
        what: what is to go.
        floor: the floor of retention in force.
        now_us: the appliance's clock.
        key_lives: whether an API key's record has not ended by itself; its revocation must be remembered as long.
    """
    size, floors = reader.head().checkpoint.size, reader.floors()
    days = floor.leaf_days if what is Pruned.LEAF else floor.content_days
    young = reader.entries(EntryFilter(from_ts_us=max(0, now_us - days * DAY_US)), limit=1).entries
    return PruneSituation(
        size=size,
        pruned_below=floors.leaf if what is Pruned.LEAF else max(floors.leaf, floors.content),
        young_from=young[0].index if young else size,
        holds=living_holds(reader),
        needed_from=min(_needed(reader, key_lives), default=None),
    )


def _needed(reader: AuditReader, key_lives: Callable[[str], bool]) -> Iterator[int]:
    for kind in _REMEMBERED:
        newest = next(entries_of(reader, kind, newest=True), None)
        if newest is not None:
            yield newest.index
    for revoked in entries_of(reader, Kind.KEY_REVOKED):
        if key_lives(revoked.leaf.event.subject):
            yield revoked.index
            break
    yield from (erasure.index for erasure in open_erasures(reader))


def check_export(reader: AuditReader, folder: Path, verifiers: Sequence[LogVerifier]) -> ExportCheck:
    """Verify a folder, and that it is an earlier state of this very log."""
    if not folder.is_dir():
        return UnverifiedExport("there is no folder of this name where exports are looked for")
    report = verify_log(folder, verifiers, PAIRING)
    if not report.ok or report.head_size is None:
        found = report.findings[0] if report.findings else "it has no head"
        return UnverifiedExport(f"the export does not verify: {found}")
    try:
        ours = reader.checkpoint(report.head_size).checkpoint.root.hex()
    except EntryNotFound:
        return UnverifiedExport(f"this log never signed a head of {report.head_size} entries")
    if ours != report.head_root:
        return UnverifiedExport("the export is a fork of this log: keep both, and call the auditor")
    return VerifiedExport(export_digest(folder), report.head_size)


def export_digest(folder: Path) -> str:
    """Give the digest of all files below a folder, as an auditor makes it inside that folder.

    `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`
    """
    whole = sha256()
    names = sorted(str(path.relative_to(folder)).encode() for path in folder.rglob("*") if path.is_file())
    for name in names:
        whole.update(f"{_file_digest(folder / name.decode())}  ".encode() + name + b"\n")
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
