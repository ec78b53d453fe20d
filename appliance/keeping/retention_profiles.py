"""Profiles of retention as data, and the floor that those chosen make together.  Pure.

The data is `retention_profiles.json`, beside this module: what a body of rules asks for, in days, with its source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from audit.event import JsonValue


@dataclass(frozen=True, slots=True)
class Profile:
    """What one body of rules asks for."""

    name: str
    title: str
    leaf_days: int
    content_days: int
    at_hand_days: int
    says: str


@dataclass(frozen=True, slots=True)
class RetentionFloor:
    """What the chosen profiles ask for together."""

    profiles: tuple[str, ...]
    leaf_days: int
    """Entries stay at least so long, and so long they are searchable in the running log."""
    content_days: int

    def is_below(self, other: RetentionFloor) -> bool:
        """Whether one of the two clocks would run shorter."""
        return self.leaf_days < other.leaf_days or self.content_days < other.content_days

    def facts(self) -> dict[str, JsonValue]:
        """Give the facts that state it."""
        return {"content_days": self.content_days, "leaf_days": self.leaf_days, "profiles": list(self.profiles)}


@lru_cache(maxsize=1)
def read_profiles() -> Mapping[str, Profile]:
    """Give every profile of this release by its name."""
    raw = json.loads((files("appliance.keeping") / "retention_profiles.json").read_bytes())
    return MappingProxyType({name: Profile(name, **fields) for name, fields in sorted(raw["profiles"].items())})


def floor_of(names: Iterable[str]) -> RetentionFloor:
    """Give the maximum over profiles; each must be one of `read_profiles`."""
    chosen = [read_profiles()[name] for name in sorted(set(names))]
    assert chosen, "a floor rests on at least one profile"
    return RetentionFloor(
        profiles=tuple(profile.name for profile in chosen),
        leaf_days=max(max(profile.leaf_days, profile.at_hand_days) for profile in chosen),
        content_days=max(profile.content_days for profile in chosen),
    )
