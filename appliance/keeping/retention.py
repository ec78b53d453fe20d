"""How long entries and contents stay at least: the floor of the profiles chosen, and its memory.

Laws: two clocks, one for entries and one for sealed content; every start states its floor (`retention:set`); a start
with a lower floor than the newest one stated is refused, unless two people approved exactly these profiles since then
(`retention:lowered`) with at least these days.  So nobody lowers it in silence, an approval serves one lowering, and
profiles that came to ask for less after it are another matter than the one approved.

`judge_floor` is pure and has types as outcomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.keeping.leaves import entries_of, index_fact, texts_fact
from appliance.keeping.retention_profiles import RetentionFloor, floor_of
from appliance.settings import PREFIX, SettingsRefused
from audit.entry import Entry
from audit.event import JsonValue
from audit.reader import AuditReader

DAY_US = 24 * 3600 * 1_000_000
SETTING = f"{PREFIX}RETENTION_PROFILES"


@dataclass(frozen=True, slots=True)
class StatedFloor:
    """The newest floor that a start stated, at its place in the log."""

    index: int
    floor: RetentionFloor


@dataclass(frozen=True, slots=True)
class LoweringApproved:
    """Two people approved these profiles and their days, at its place in the log."""

    index: int
    floor: RetentionFloor


@dataclass(frozen=True, slots=True)
class FloorHolds:
    """The floor may be stated; `exception_index` is the approval that a lower one rests on."""

    exception_index: int | None


@dataclass(frozen=True, slots=True)
class FloorLowered:
    """Refused: lower than `stated`, and nobody approved it."""

    stated: StatedFloor


FloorVerdict: TypeAlias = "FloorHolds | FloorLowered"


def judge_floor(floor: RetentionFloor, stated: StatedFloor | None, approved: LoweringApproved | None) -> FloorVerdict:
    """Say whether a start may state this floor."""
    if stated is None or not floor.is_below(stated.floor):
        return FloorHolds(None)
    if approved is not None and approved.index > stated.index and _is_of(approved.floor, floor):
        return FloorHolds(approved.index)
    return FloorLowered(stated)


def _is_of(approved: RetentionFloor, floor: RetentionFloor) -> bool:
    return frozenset(approved.profiles) == frozenset(floor.profiles) and not floor.is_below(approved)


def newest_stated(reader: AuditReader) -> StatedFloor | None:
    """Read the floor that the newest start stated."""
    entry = _newest(reader, Kind.RETENTION_SET)
    return None if entry is None else StatedFloor(entry.index, _floor(entry))


def newest_approved(reader: AuditReader) -> LoweringApproved | None:
    """Read the newest lowering that two people approved."""
    entry = _newest(reader, Kind.RETENTION_LOWERED)
    return None if entry is None else LoweringApproved(entry.index, _floor(entry))


def _newest(reader: AuditReader, kind: Kind) -> Entry | None:
    """Give the newest entry of a kind, as what was signed."""
    entry = next(entries_of(reader, kind, newest=True), None)
    if entry is not None:
        reader.require_proven(entry)
    return entry


async def state_retention(trail: AuditTrail, reader: AuditReader, names: Iterable[str]) -> RetentionFloor:
    """Record the floor of this start, or refuse the start.

    Raises:
        SettingsRefused: lower than the floor of before without two people's approval; the refusal is recorded.
        audit.errors.AuditError: not recorded.
    """
    floor = floor_of(names)
    stated = await asyncio.to_thread(newest_stated, reader)
    approved = await asyncio.to_thread(newest_approved, reader)
    match judge_floor(floor, stated, approved):
        case FloorHolds(exception_index):
            exception: dict[str, JsonValue] = {} if exception_index is None else {"exception_index": exception_index}
            await trail.append(Kind.RETENTION_SET, SYSTEM, "retention", {**floor.facts(), **exception})
            return floor
        case FloorLowered(before):
            facts = {"act": "lower_retention", "code": "retention_lowered", "outcome": "refused", **floor.facts()}
            await trail.append(Kind.ACT_REFUSED, SYSTEM, "retention", {**facts, "stated_index": before.index})
            raise SettingsRefused(
                f"{SETTING}: {', '.join(floor.profiles)} keeps entries {floor.leaf_days} and contents "
                f"{floor.content_days} days, less than the {before.floor.leaf_days} and {before.floor.content_days} "
                f"that entry {before.index} of the log states for {', '.join(before.floor.profiles)}; restore the "
                "setting, or have two people approve the change first: cloister audit retention propose"
            )


def _floor(entry: Entry) -> RetentionFloor:
    leaf_days, content_days = index_fact(entry, "leaf_days"), index_fact(entry, "content_days")
    assert leaf_days is not None, f"entry {entry.index} states no floor for entries"
    assert content_days is not None, f"entry {entry.index} states no floor for contents"
    return RetentionFloor(texts_fact(entry, "profiles"), leaf_days, content_days)
