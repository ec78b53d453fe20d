"""Stop strings over a stream of text, of which no part of a stop string ever leaves early.

Invariants: where the text is cut does not depend on how it was cut into deltas; what is held back is never longer
than the longest stop string less one character; of several stop strings the one that is complete first wins, and of
two that are complete at the same character the longer one; where no stop string counts yet, one that begins there and
is complete later counts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Matched:
    """What one delta released, and the stop string that ended the text with it, if one did."""

    text: str
    stop: str | None = None


class StopMatcher:
    """Holds back the end of the text for as long as it may become a stop string.  Owned by one choice."""

    def __init__(self, stops: tuple[str, ...], *, include_stop: bool = False) -> None:
        assert all(stops), f"an empty stop string among {len(stops)} would end every text at once"
        self._stops = stops
        self._include_stop = include_stop
        self._longest_prefix_len = max(map(len, stops), default=1) - 1
        self._held = ""
        """The longest end of the text so far that begins some stop string."""
        self._stopped = False

    def push(self, text: str, *, may_stop: bool = True) -> Matched:
        """Take new text in and release what no stop string can claim any more.

        Args:
            text: what follows.
            may_stop: whether a stop string that is complete in this text ends it.
        """
        assert not self._stopped, "text came after the stop string that ended it"
        if not self._stops:
            return Matched(text)
        seen = self._held + text
        found = self._first_complete(seen, len(self._held)) if may_stop else None
        if found is not None:
            start, stop = found
            self._held = ""
            self._stopped = True
            return Matched(seen[: start + len(stop) if self._include_stop else start], stop)
        keep = self._num_claimed(seen)
        self._held = seen[len(seen) - keep :]
        return Matched(seen[: len(seen) - keep])

    def flush(self) -> str:
        """Release what is held back: no text will follow, so it is no stop string."""
        held, self._held = self._held, ""
        return held

    def _first_complete(self, seen: str, after: int) -> tuple[int, str] | None:
        """Give the match whose last character comes first after the `after` characters that are judged already."""
        found = [
            (start, stop) for stop in self._stops if (start := seen.find(stop, max(0, after + 1 - len(stop)))) >= 0
        ]
        return min(found, key=lambda match: (match[0] + len(match[1]), match[0]), default=None)

    def _num_claimed(self, seen: str) -> int:
        for length in range(min(len(seen), self._longest_prefix_len), 0, -1):
            end = seen[-length:]
            if any(stop.startswith(end) for stop in self._stops if len(stop) > length):
                return length
        return 0
