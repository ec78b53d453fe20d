"""What the summary counts, entry by entry.

Pure; memory grows with the number of days, kinds, outcomes and policy ids, never with the number of entries.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from audit.leaf import Leaf
from audit.pairing import Pairing

_DAY_US = 86_400_000_000
MAX_NAMED_POLICIES = 1_000
OTHERS = "(others)"


class Tokens(NamedTuple):
    """Of the requests that ended on one day."""

    prompt: int
    completion: int


@dataclass(slots=True)
class Tally:
    """Counts over the entries in range."""

    pairing: Pairing
    num_entries: int = 0
    first_us: int | None = None
    last_us: int | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    """(day since 1970, how a request ended) -> requests."""
    denials: Counter[str] = field(default_factory=Counter)
    """Policy id, or the reason where no policy decided -> denials."""
    prompt_tokens: Counter[int] = field(default_factory=Counter)
    """By day since 1970."""
    completion_tokens: Counter[int] = field(default_factory=Counter)

    def count(self, leaf: Leaf) -> None:
        """Take one entry."""
        event = leaf.event
        self.num_entries += 1
        self.first_us = event.ts_us if self.first_us is None else min(self.first_us, event.ts_us)
        self.last_us = event.ts_us if self.last_us is None else max(self.last_us, event.ts_us)
        self.kinds[event.kind] += 1
        subject, _, act = event.kind.partition(":")
        if subject != self.pairing.opening.partition(":")[0] or event.kind == self.pairing.opening:
            return
        day = event.ts_us // _DAY_US
        self.outcomes[day, act] += 1
        if event.facts.get("decision") == "deny":
            self._count_denial(leaf)
        for name, counter in (("prompt_tokens", self.prompt_tokens), ("completion_tokens", self.completion_tokens)):
            number = event.facts.get(name)
            if type(number) is int:
                counter[day] += number

    def _count_denial(self, leaf: Leaf) -> None:
        ids = leaf.event.facts.get("policy_ids")
        reason = leaf.event.facts.get("reason")
        causes = [str(item) for item in ids] if isinstance(ids, list) and ids else [f"no policy: {reason}"]
        for cause in causes:
            known = cause in self.denials or len(self.denials) < MAX_NAMED_POLICIES
            self.denials[cause if known else OTHERS] += 1
