"""Legal holds: what must stay, whatever an erasure or a retention clock says, until two people release it.

A hold is on a person, on a tenant or on a range of entries; its number is the index of its `hold:placed` leaf.  It
lives until a `hold:released` leaf names it.  Pure but for `living_holds` and `is_known`, which read the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from appliance.audit_trail import Kind
from appliance.keeping.leaves import entries_of, index_fact, text_fact
from appliance.keeping.names import same_name
from audit.entry import Entry
from audit.event import JsonValue
from audit.reader import AuditReader, EntryFilter


@dataclass(frozen=True, slots=True)
class Person:
    """One id in one tenant."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True)
class OnPerson:
    """All that concerns one person."""

    person: Person

    def __str__(self) -> str:
        return f"subject {self.person.id} of tenant {self.person.tenant}"


@dataclass(frozen=True, slots=True)
class OnTenant:
    """All that concerns a tenant."""

    tenant: str

    def __str__(self) -> str:
        return f"tenant {self.tenant}"


@dataclass(frozen=True, slots=True)
class OnRange:
    """Entries of the log, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"entries {self.first} to {self.last}"


HoldScope: TypeAlias = "OnPerson | OnTenant | OnRange"


@dataclass(frozen=True, slots=True)
class Hold:
    """A living hold."""

    index: int
    """Of its leaf; its number."""
    scope: HoldScope
    reason: str
    placed_by: str
    at_us: int

    def __str__(self) -> str:
        return f"hold {self.index} on {self.scope}"

    def reaches_person(self, person: Person) -> bool:
        """Whether it is on this person, under any spelling of the name, or on the person's tenant."""
        match self.scope:
            case OnPerson(held):
                return same_name(held.tenant, person.tenant) and same_name(held.id, person.id)
            case OnTenant(tenant):
                return same_name(tenant, person.tenant)
            case OnRange():
                return False  # whether the person has entries there, the log says: `erasure.read_situation`

    @property
    def held_from(self) -> int:
        """Lowest index that it may reach.

        A person's or a tenant's entries can lie anywhere, and pruning can leave nobody's out.
        """
        return self.scope.first if isinstance(self.scope, OnRange) else 0


def hold_facts(scope: HoldScope, reason: str) -> dict[str, JsonValue]:
    """Give the facts of `hold:placed`."""
    match scope:
        case OnPerson(person):
            return {"held_subject": person.id, "held_tenant": person.tenant, "reason": reason}
        case OnTenant(tenant):
            return {"held_tenant": tenant, "reason": reason}
        case OnRange(first, last):
            return {"held_from": first, "held_to": last, "reason": reason}


def read_hold(entry: Entry) -> Hold:
    """Give the hold that a `hold:placed` leaf places."""
    event = entry.leaf.event
    return Hold(entry.index, _scope(entry), text_fact(entry, "reason") or "", event.actor, event.ts_us)


def living_holds(reader: AuditReader) -> tuple[Hold, ...]:
    """Give every hold that was placed and not released, oldest first.

    Raises:
        audit.errors.AuditCorrupt: one of these entries is not what this log signed.
    """
    releases, placings = tuple(entries_of(reader, Kind.HOLD_RELEASED)), tuple(entries_of(reader, Kind.HOLD_PLACED))
    reader.require_proven(*releases, *placings)
    released = {index_fact(entry, "hold_index") for entry in releases}
    return tuple(hold for hold in map(read_hold, placings) if hold.index not in released)


def is_known(reader: AuditReader, scope: HoldScope) -> bool:
    """Whether the log has an entry of exactly what a hold names: where not, it may be a slip of the pen.

    The hold stands all the same; a court may be sooner than the person.
    """
    match scope:
        case OnPerson(person):
            return bool(reader.entries(EntryFilter(actor=person.id, tenant=person.tenant), limit=1).entries)
        case OnTenant(tenant):
            return bool(reader.entries(EntryFilter(tenant=tenant), limit=1).entries)
        case OnRange(first, _):
            return first < reader.head().checkpoint.size


def named(holds: Iterable[Hold]) -> str:
    """Name holds for a message."""
    return ", ".join(map(str, holds))


def _scope(entry: Entry) -> HoldScope:
    subject, tenant = text_fact(entry, "held_subject"), text_fact(entry, "held_tenant")
    first, last = index_fact(entry, "held_from"), index_fact(entry, "held_to")
    if tenant is not None:
        return OnTenant(tenant) if subject is None else OnPerson(Person(tenant, subject))
    if first is not None and last is not None:
        return OnRange(first, last)
    # A hold that cannot be read holds everything: what it was meant for must not go because of a fault of ours.
    return OnRange(0, entry.index)
