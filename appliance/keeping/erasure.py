"""Erase a person: destroy the keys of the person's commitments and sealed contents, and leave every proof as it is.

Order, and what a crash leaves behind:
1. `subject:erasing` is durable: decided, with the ids of the keys.  Before it nothing was done.
2. The keys are destroyed, file and journal searched.  A crash from here on leaves an erasure that the next start does
   again and finishes, before anything is served.
3. `subject:erased` is durable: done, with what was checked.  Only then does anybody get a certificate.
So no erasure is without its record, and no record of a finished erasure without the erasure.  A key file from a backup
that still has a key of an erased person is cleaned at the next start, and that is recorded too.

A hold that was placed after the decision and before the keys were destroyed beats it: it stays open, and R13 names it,
until the hold is released and somebody asks again, or the appliance starts.

A request of that person that is under way ends with its record; what it said is neither committed to nor sealed, since
the key it began under is gone, and no new key is made for it (`recorder`).  A person who comes back gets a new key.

`may_erase` is pure and has types as outcomes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from appliance.audit_trail import SYSTEM, AuditTrail, Kind, key_subject
from appliance.identity.principal import Principal
from appliance.keeping.holds import Hold, OnRange, Person, living_holds
from appliance.keeping.leaves import entries_of, index_fact, text_fact, texts_fact
from audit.entry import Entry
from audit.event import JsonValue, Receipt
from audit.reader import AuditReader, EntryFilter
from audit.subject_keys.keyring import KeysOfSubject, SubjectKeyring

LOG = structlog.get_logger("cloister.erasure")


@dataclass(frozen=True, slots=True)
class OpenErasure:
    """Decided and not known to be done."""

    index: int
    person: Person
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ErasureSituation:
    """What the log says of a person who is to be erased."""

    holds: tuple[Hold, ...]
    """Living holds that reach the person, or entries of the person."""
    erased_at: int | None
    """Index of the person's newest `subject:erased`."""


@dataclass(frozen=True, slots=True)
class MayErase:
    """Destroy these keys."""

    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A hold beats erasure."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class ErasedBefore:
    """Nothing of this person can be proven or read since then."""

    index: int


@dataclass(frozen=True, slots=True)
class NeverKnown:
    """There was never a key for this very name in this tenant."""


Verdict: TypeAlias = "MayErase | Held | ErasedBefore | NeverKnown"


def may_erase(keys: KeysOfSubject, situation: ErasureSituation) -> Verdict:
    """Say whether a person may be erased now; an erasure that was decided before is finished first (`finish`)."""
    if situation.holds:
        return Held(situation.holds)
    if keys.living:
        return MayErase(keys.living)
    if situation.erased_at is not None:
        return ErasedBefore(situation.erased_at)
    return NeverKnown()


def read_situation(reader: AuditReader, person: Person) -> ErasureSituation:
    """Read what the log says of a person."""
    holds = tuple(hold for hold in living_holds(reader) if _reaches(reader, hold, person))
    erased = (entry for entry in entries_of(reader, Kind.SUBJECT_ERASED, newest=True) if _person_of(entry) == person)
    return ErasureSituation(holds, next((entry.index for entry in erased), None))


def open_erasures(reader: AuditReader) -> tuple[OpenErasure, ...]:
    """Give every erasure that was decided and has no `subject:erased`.

    Raises:
        audit.errors.AuditCorrupt: the decision is not one that this log signed.
    """
    done = {index_fact(entry, "erasing_index") for entry in entries_of(reader, Kind.SUBJECT_ERASED)}
    return tuple(_proven(reader, one) for one in decided_erasures(reader) if one.index not in done)


def decided_erasures(reader: AuditReader) -> tuple[OpenErasure, ...]:
    """Give every erasure that was ever decided, oldest first."""
    return tuple(map(_decision, entries_of(reader, Kind.SUBJECT_ERASING)))


def _decision(entry: Entry) -> OpenErasure:
    return OpenErasure(entry.index, _person_of(entry), texts_fact(entry, "key_ids"))


def _proven(reader: AuditReader, erasure: OpenErasure) -> OpenErasure:
    """Read a decision once more, as what was signed: on its word keys are destroyed."""
    entry = reader.entry(erasure.index)
    reader.require_proven(entry)
    return _decision(entry)


def erasing_facts(person: Person, key_ids: Sequence[str], reason: str) -> dict[str, JsonValue]:
    """Give the facts of `subject:erasing`."""
    return {"key_ids": list(key_ids), "reason": reason, "subject_tenant": person.tenant}


async def finish(trail: AuditTrail, keyring: SubjectKeyring, actor: Principal, erasure: OpenErasure) -> Receipt:
    """Destroy the keys of an erasure that was decided, then record that it is done.

    Raises:
        audit.errors.AuditError: it is not known to be done; the next start does it again.
    """
    destroyed = await asyncio.to_thread(keyring.destroy, erasure.key_ids)
    return await _record_done(trail, actor, erasure, erasure.key_ids, num_searched=len(destroyed), why="asked")


async def finish_after_restart(trail: AuditTrail, reader: AuditReader, keyring: SubjectKeyring) -> None:
    """Do every decided erasure again: finish what a crash left open, and clean a key file from an older backup.

    Raises:
        audit.errors.AuditCorrupt: a decision that would destroy a key now is not one that this log signed.
        audit.errors.AuditError: not done; the appliance must not serve.
    """
    decided = await asyncio.to_thread(decided_erasures, reader)
    if not decided:
        return
    unfinished = {erasure.index for erasure in await asyncio.to_thread(open_erasures, reader)}
    held = [one for one in decided if one.index in unfinished and await _is_held(reader, keyring, one)]
    decided = tuple(one for one in decided if one not in held)
    every_key = [key_id for erasure in decided for key_id in erasure.key_ids]
    owed = {key_id for erasure in decided if erasure.index in unfinished for key_id in erasure.key_ids}
    owed.update(await asyncio.to_thread(keyring.living_among, every_key))
    if not owed:  # the usual start writes nothing
        return
    acted_on = [one for one in decided if one.index in unfinished or owed.intersection(one.key_ids)]
    proven = [await asyncio.to_thread(_proven, reader, one) for one in acted_on]
    owed.intersection_update(key_id for one in proven for key_id in one.key_ids)
    revived = set(await asyncio.to_thread(keyring.destroy, owed))
    for erasure in proven:
        if erasure.index in unfinished:
            num_searched = len(revived.intersection(erasure.key_ids))
            why = "finished_at_start"
            await _record_done(trail, SYSTEM, erasure, erasure.key_ids, num_searched=num_searched, why=why)
        elif again := sorted(revived.intersection(erasure.key_ids)):
            LOG.warning(
                "erased_again",
                key_ids=again,
                remedy="subject_keys.db was older than the log; find out who restored it, and destroy that copy",
            )
            await _record_done(trail, SYSTEM, erasure, again, num_searched=len(again), why="older_key_file")


async def _is_held(reader: AuditReader, keyring: SubjectKeyring, erasure: OpenErasure) -> bool:
    """Whether a hold came before the keys were destroyed; what is destroyed, nobody can hold."""
    if not await asyncio.to_thread(keyring.living_among, erasure.key_ids):
        return False
    situation = await asyncio.to_thread(read_situation, reader, erasure.person)
    if situation.holds:
        LOG.warning("erasure_held", erasing_index=erasure.index, held_by=[hold.index for hold in situation.holds])
    return bool(situation.holds)


async def _record_done(
    trail: AuditTrail, actor: Principal, erasure: OpenErasure, key_ids: Sequence[str], *, num_searched: int, why: str
) -> Receipt:
    """Record what `SubjectKeyring.destroy` returned from; it raises where any of this is not so.

    Bytes of a key can be searched for by whoever destroyed it alone; a start that finishes what a crash left behind
    says how many it had.
    """
    facts: dict[str, JsonValue] = {
        "checked": {"journal_bytes": 0, "keys_searched_for": num_searched, "living_keys": 0, "traces_found": 0},
        "erasing_index": erasure.index,
        "key_ids": list(key_ids),
        "outcome": "completed",
        "subject_tenant": erasure.person.tenant,
        "why": why,
    }
    return await trail.append_owed(Kind.SUBJECT_ERASED, actor, erasure.person.id, facts)


def person_key(person: Person) -> str:
    """Name a person to the keyring."""
    return key_subject(person.tenant, person.id)


def _person_of(entry: Entry) -> Person:
    return Person(text_fact(entry, "subject_tenant") or "", entry.leaf.event.subject)


def _reaches(reader: AuditReader, hold: Hold, person: Person) -> bool:
    if not isinstance(hold.scope, OnRange):
        return hold.reaches_person(person)
    first, last = hold.scope.first, hold.scope.last
    theirs = EntryFilter(actor=person.id, tenant=person.tenant)
    found = reader.entries(theirs, after=first - 1 if first else None, limit=1).entries
    return bool(found) and found[0].index <= last
