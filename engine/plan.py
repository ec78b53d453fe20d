"""One step's plan: the batch, and everything that must become true of memory and queues for it to be right.

`Planning` makes it and changes nothing; `Scheduler.commit` alone applies it.
Rules, in this order:
    1. classes from the highest down; in a class those that run, the older first, then those that wait;
    2. every running sequence that lacks one token gets that token: its share of the budget is set aside first;
    3. pages that are missing come from the lowest class's youngest sequence, but never from one of higher rank;
    4. a waiting sequence starts when all its known tokens fit and leave a page to each that runs before it; it may
       displace lower classes, never its own; when it does not fit, nobody behind it starts either;
    5. a waiting sequence whose next page is being computed in this very step waits one step and finds it cached.
So the first of the highest class always advances, whatever else happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.batch import Batch, ScheduledChunk
from engine.fairness import INPUT_COST
from engine.kv_memory import KvMemory
from engine.page_node import PageKey, PageNode
from engine.request import FinishReason
from engine.sequence import Sequence
from engine.waiting import WaitingQueue


@dataclass(frozen=True, slots=True)
class Admission:
    """A waiting sequence that starts to run, and the cached prefix it starts with."""

    sequence: Sequence
    match: PageNode | None
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Ending:
    """A live sequence that ends without a further token."""

    sequence: Sequence
    finish: FinishReason
    error: str | None


@dataclass(frozen=True, slots=True)
class Advance:
    """A running sequence's part in the batch, and the pages it takes for that."""

    sequence: Sequence
    chunk: ScheduledChunk
    new_page_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Frozen; refers to sequences and nodes by identity and is valid for the state it was made from alone."""

    revision: int
    batch: Batch
    advances: tuple[Advance, ...]
    """As long as the batch, in its order."""
    admitted: tuple[Admission, ...]
    preempted: tuple[Sequence, ...]
    evicted: tuple[PageNode, ...]
    """Children before parents."""
    ended: tuple[Ending, ...]

    @property
    def sampling(self) -> tuple[Sequence, ...]:
        """The sequences that get a token, in the order of the logits' rows."""
        return tuple(advance.sequence for advance in self.advances if advance.chunk.samples)


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What one step may do at most."""

    max_num_tokens: int
    max_num_running: int
    """At most `max_num_tokens`, so that each of them can have a token in each step."""


def prompt_cost(admission: Admission) -> int:
    """Give what a new sequence's client pays at its start: the prompt without what was cached."""
    return INPUT_COST * (len(admission.sequence.request.token_ids) - admission.num_cached_tokens)


class Planning:
    """One planning, used once."""

    def __init__(
        self, memory: KvMemory, waiting: WaitingQueue, running: Iterable[Sequence], limits: StepLimits
    ) -> None:
        """Begin to plan.

        Args:
            memory: pages and tree as they are.
            waiting: those that wait, without those that end in this step.
            running: those that go on, by rank.
            limits: of the step.
        """
        self._memory = memory
        self._waiting = waiting
        self._waiting_priorities = waiting.priorities()
        self._limits = limits
        self.forecast = memory.forecast()

        self._later = deque(running)
        """Running sequences whose turn has not come, by rank: the ones that may be preempted, from the end."""
        self._kept: list[Sequence] = []
        """Sequences whose turn has come and that run after this step."""
        self._num_tokens_left = limits.max_num_tokens
        self._num_tokens_reserved = sum(sequence.is_decoding for sequence in self._later)
        """Set aside for those of `_later` that need one token."""
        self._closed_from: int | None = None
        """No sequence of this class or a lower one starts: one of it was preempted in this step."""
        self._is_closed = False
        """No sequence starts any more: one of higher rank could not."""
        self._in_progress: set[tuple[PageNode | bytes, PageKey]] = set()
        """Pages that this batch fills: the place in the tree, or the salt of a tree without root, and the tokens."""

        self.advances: list[Advance] = []
        self.admitted: list[Admission] = []
        self.preempted: list[Sequence] = []

    def run(self) -> None:
        """Plan the whole step."""
        priorities = self._waiting_priorities.union(sequence.request.priority for sequence in self._later)
        for priority in sorted(priorities, reverse=True):
            while self._later and self._later[0].request.priority == priority:
                self._go_on(self._later.popleft())
            if self._may_start(priority):
                self._start_waiting(priority)

    def _go_on(self, sequence: Sequence) -> None:
        if sequence.is_decoding:
            self._num_tokens_reserved -= 1
        num_tokens = min(sequence.num_uncomputed, self._num_free_tokens())
        num_held = len(sequence.page_ids)
        num_new_pages = self._memory.num_pages_for(sequence.num_computed + num_tokens) - num_held
        while num_new_pages > self.forecast.num_available and self._later:
            self._displace_last()
        if num_new_pages > self.forecast.num_available:
            num_new_pages = self.forecast.num_available
            num_tokens = (num_held + num_new_pages) * self._memory.page_size - sequence.num_computed
            if num_tokens == 0:
                self._preempt(sequence)
                return
        if num_tokens:
            self._advance(sequence, sequence.node, sequence.num_computed, num_tokens, sequence.page_ids, num_new_pages)
        else:
            self._kept.append(sequence)

    def _may_start(self, priority: int) -> bool:
        is_below_preempted = self._closed_from is not None and priority <= self._closed_from
        return not self._is_closed and not is_below_preempted and priority in self._waiting_priorities

    def _start_waiting(self, priority: int) -> None:
        walk = self._waiting.walk(priority)
        num_deferred = 0
        for sequence in walk:
            num_free_places = self._limits.max_num_running - len(self._kept) - num_deferred
            num_tokens = self._num_tokens_left if self._is_full() else self._num_free_tokens()
            if num_free_places <= 0 or num_tokens <= 0:
                self._is_closed = True
                return
            match = self.forecast.match(sequence)
            if self._is_in_progress(sequence, match):
                num_deferred += 1
                continue
            if not self._make_room(sequence, match):
                self._is_closed = True
                return
            self._start(sequence, match)
            walk.charge(prompt_cost(self.admitted[-1]))

    def _is_in_progress(self, sequence: Sequence, match: PageNode | None) -> bool:
        depth = match.depth if match else 0
        if not self._in_progress or depth >= (sequence.num_tokens - 1) // self._memory.page_size:
            return False
        return (match or sequence.request.cache_salt, sequence.page_key(depth)) in self._in_progress

    def _make_room(self, sequence: Sequence, match: PageNode | None) -> bool:
        depth = match.depth if match else 0
        num_wanted = self._memory.num_pages_for(sequence.num_tokens) - depth + len(self._kept)
        if self._lacks_room(num_wanted, match) and num_wanted > self._num_pages_outside_kept(match):
            return False
        while self._lacks_room(num_wanted, match):
            if not self._later:
                return False
            self._displace_last()
        return True

    def _lacks_room(self, num_wanted: int, match: PageNode | None) -> bool:
        is_short_of_pages = num_wanted > self.forecast.num_available_beside(match)
        return self._is_full() or self._num_free_tokens() <= 0 or is_short_of_pages

    def _is_full(self) -> bool:
        """Whether nobody can start without displacing somebody, who then also leaves the token set aside for them."""
        return len(self._kept) + len(self._later) >= self._limits.max_num_running

    def _num_free_tokens(self) -> int:
        return self._num_tokens_left - self._num_tokens_reserved

    def _num_pages_outside_kept(self, match: PageNode | None) -> int:
        """Pages that would be available if all of `_later` were preempted."""
        held = {page for advance in self.advances for page in advance.new_page_ids}
        held.update(page for sequence in self._kept for page in sequence.page_ids)
        held.update(page for admission in self.admitted if admission.match for page in admission.match.page_ids())
        held.update(match.page_ids() if match else ())
        return self._memory.num_pages - len(held)

    def _start(self, sequence: Sequence, match: PageNode | None) -> None:
        self.forecast.protect(match)
        page_ids = match.page_ids() if match else ()
        num_computed = len(page_ids) * self._memory.page_size
        self.admitted.append(Admission(sequence, match, num_computed))
        num_tokens = min(sequence.num_tokens - num_computed, self._num_free_tokens())
        num_new_pages = self._memory.num_pages_for(num_computed + num_tokens) - len(page_ids)
        self._advance(sequence, match, num_computed, num_tokens, page_ids, num_new_pages)

    def _advance(
        self,
        sequence: Sequence,
        node: PageNode | None,
        start: int,
        num_tokens: int,
        page_ids: tuple[int, ...],
        num_new_pages: int,
    ) -> None:
        end = start + num_tokens
        new_page_ids = self.forecast.take(num_new_pages) if num_new_pages else ()
        chunk = ScheduledChunk(
            request_id=sequence.request_id,
            token_ids=sequence.tokens_between(start, end),
            start=start,
            page_ids=page_ids + new_page_ids if new_page_ids else page_ids,
            samples=end == sequence.num_tokens,
        )
        self.advances.append(Advance(sequence, chunk, new_page_ids))
        self._num_tokens_left -= num_tokens
        depth = node.depth if node else 0
        if self._memory.shares_pages and end // self._memory.page_size > depth:
            self._in_progress.add((node or sequence.request.cache_salt, sequence.page_key(depth)))
        self._kept.append(sequence)

    def _displace_last(self) -> None:
        sequence = self._later.pop()
        if sequence.is_decoding:
            self._num_tokens_reserved -= 1
        self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self.forecast.release(sequence)
        self.preempted.append(sequence)
        priority = sequence.request.priority
        self._closed_from = priority if self._closed_from is None else max(priority, self._closed_from)
