"""Virtual token counters: inside one priority class, the client that was served least goes first.

After "Fairness in Serving Large Language Models" (arXiv 2401.00588): a counter per client grows by the weighted tokens
it is served; the waiting client with the smallest counter is chosen; a client that comes back is lifted to the smallest
counter among the waiting ones, so that idling saves nothing up and owes nothing more.
Bound: of two clients that both keep waiting, the counters differ by at most one request's charge plus what the running
requests still generate.  Never: request contents, classes, pages.
"""

from __future__ import annotations

from collections.abc import Iterable

INPUT_COST = 1
"""Per prompt token that is computed; a cached one costs nothing, and neither does recomputation."""
OUTPUT_COST = 2
"""Per generated token: it costs a whole step's pass over the weights, where prompt tokens share one."""

_FORGET_ABOVE = 64
"""Counters of absent clients that are kept before it is worth looking for those that say nothing any more."""


class VirtualTokenCounters:
    """Owner of the counters of one class, for as long as the class is busy: an idle one has harmed nobody."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._floor = 0
        """Counter of the client chosen last.  Nobody enters below it, so an absent client at or below it need not be
        remembered."""

    def __getitem__(self, key: str) -> int:
        return self._counters[key]

    def __len__(self) -> int:
        return len(self._counters)

    def enter(self, key: str, waiting_keys: Iterable[str]) -> None:
        """Lift a client that had nothing waiting to the smallest counter of those that have."""
        least = min((self._counters[other] for other in waiting_keys), default=self._floor)
        self._counters[key] = max(self._counters.get(key, 0), least)

    def choose(self, key: str) -> None:
        """Note that this client is served next."""
        self._floor = max(self._floor, self._counters[key])

    def charge(self, key: str, cost: int) -> None:
        """Add weighted tokens."""
        self._counters[key] += cost

    def forget_absent(self, present_keys: Iterable[str]) -> None:
        """Drop the counters of absent clients that the floor has overtaken; cheap when there are few clients."""
        present = set(present_keys)
        if len(self._counters) <= 2 * len(present) + _FORGET_ABOVE:
            return
        self._counters = {
            key: counter for key, counter in self._counters.items() if key in present or counter > self._floor
        }
