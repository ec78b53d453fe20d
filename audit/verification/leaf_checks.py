"""What the leaves must say about one another, in order: place, epochs, clocks, and the life of each subject.

Pure.  Feed it leaves whose bytes are tied to the tree; an altered leaf is `skip`ped, so that one flipped bit is one
finding and not a cascade.
"""

from __future__ import annotations

from audit.leaf import Leaf
from audit.pairing import Pairing
from audit.report import FindingList, Place
from audit.slew import slew_allowance_us


class LeafChecks:
    """Walks the leaves once; memory grows with the number of subjects, by one integer each."""

    def __init__(self, pairing: Pairing | None, clock_limit_us: int, findings: FindingList) -> None:
        self.floor = 0
        """Set before the first leaf: entries below were pruned."""
        self._pairing = pairing
        self._clock_limit_us = clock_limit_us
        self._findings = findings
        self._previous: Leaf | None = None
        self._opened: dict[str, int] = {}
        self._ended: set[int] = set()
        self._unsure: set[int] = set()  # subjects that a skipped leaf may have opened or ended
        self._unsure_of_all = False  # a skipped leaf may have been about anyone
        self.notes: list[str] = []

    @property
    def unfinished(self) -> tuple[tuple[str, int], ...]:
        """Subjects opened and not ended, with the index of their opening."""
        return tuple(self._opened.items())

    def accept(self, index: int, leaf: Leaf) -> None:
        """Check the next leaf."""
        if leaf.index != index:
            self._findings.add(Place.LEAF_ROW, index, f"the leaf here was written for index {leaf.index}")
        if leaf.head != index and (leaf.head > index or (self._previous and leaf.head != self._previous.head)):
            self._findings.add(Place.LEAF_ROW, index, f"its batch began at {leaf.head}, which is not where one began")
        self._check_run(index, leaf)
        self._check_state(index, leaf)
        self._previous = leaf

    def skip(self, subject: str | None) -> None:
        """Pass over a leaf that cannot be believed; `subject` is the best guess of what it was about."""
        self._previous = None
        if subject is None:
            self._unsure_of_all = True
        else:
            self._unsure.add(hash(subject))

    def _check_run(self, index: int, leaf: Leaf) -> None:
        previous = self._previous
        if previous is None:
            if index == 0 and leaf.place.epoch != 1:
                self._findings.add(Place.LEAF_ROW, index, f"the first entry is of epoch {leaf.place.epoch}, not 1")
            return
        if leaf.place.epoch == previous.place.epoch + 1:
            if leaf.event.ts_us < previous.event.ts_us:
                back_s = (previous.event.ts_us - leaf.event.ts_us) / 1e6
                self.notes.append(f"entry {index}: the clock went back {back_s:.3f} s between two runs")
            return
        if leaf.place != previous.place:
            self._findings.add(
                Place.LEAF_ROW,
                index,
                f"epoch {leaf.place.epoch} of boot {leaf.place.boot_id} follows epoch {previous.place.epoch} "
                f"of boot {previous.place.boot_id}",
            )
            return
        elapsed_ns = leaf.event.monotonic_ns - previous.event.monotonic_ns
        step_us = abs((leaf.event.ts_us - previous.event.ts_us) * 1_000 - elapsed_ns) // 1_000
        if step_us > 3 * self._clock_limit_us + slew_allowance_us(elapsed_ns):
            self._findings.add(Place.CLOCK, index, f"wall and monotonic clock part by {step_us / 1e6:.3f} s")

    def _check_state(self, index: int, leaf: Leaf) -> None:
        if self._pairing is None:
            return
        subject, kind = leaf.event.subject, leaf.event.kind
        mark = hash(subject)
        if kind == self._pairing.opening:
            if subject in self._opened or mark in self._ended:
                self._findings.add(Place.STATE, index, f"{kind} a second time for {subject}")
            else:
                self._opened[subject] = index
        elif kind in self._pairing.terminals:
            if self._opened.pop(subject, None) is not None:
                self._ended.add(mark)
            elif mark in self._ended or not (
                self._unsure_of_all or mark in self._unsure or self._opened_below_floor(leaf, self._pairing)
            ):
                why = "a second end" if mark in self._ended else "an end without an opening"
                self._findings.add(Place.STATE, index, f"{kind} is {why} of {subject}")
            else:
                self._ended.add(mark)  # it began below the floor, or where nothing was seen; it ends once all the same

    def _opened_below_floor(self, leaf: Leaf, pairing: Pairing) -> bool:
        opened_at = leaf.event.facts.get(pairing.opening_index_fact or "")
        return isinstance(opened_at, int) and opened_at < self.floor
