"""Who waits, in which order: strict classes; in a class, preempted sequences first, then fairly by client.

Invariants: a sequence waits at most once; a class exists while one of its sequences lives; a client's own sequences
keep their order of arrival.  Reading (`walk`) changes nothing: a planner walks as if its choices were made already.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Iterator

from engine.fairness import VirtualTokenCounters
from engine.sequence import Sequence


class WaitingQueue:
    """Owner of the order of waiting sequences and of the counters that decide it."""

    def __init__(self) -> None:
        self._classes: dict[int, ServiceClass] = {}
        self._num_waiting = 0

    def __len__(self) -> int:
        return self._num_waiting

    def priorities(self) -> set[int]:
        """Give the classes in which somebody waits."""
        return {priority for priority, service in self._classes.items() if service.is_waiting}

    def walk(self, priority: int) -> FairWalk:
        """Begin to walk through a class in the order of service."""
        return FairWalk(self._classes[priority])

    def add(self, sequence: Sequence) -> None:
        """A new sequence comes."""
        self._classes.setdefault(sequence.request.priority, ServiceClass()).add(sequence)
        self._num_waiting += 1

    def put_back(self, sequence: Sequence) -> None:
        """A preempted sequence waits again; it was chosen before and goes before those that were not."""
        insort(self._class_of(sequence).preempted, sequence, key=lambda waiting: waiting.arrival)
        self._num_waiting += 1

    def take_out(self, sequence: Sequence) -> None:
        """A sequence waits no longer."""
        self._class_of(sequence).take_out(sequence)
        self._num_waiting -= 1

    def choose(self, sequence: Sequence, cost: int) -> None:
        """A new sequence is served first: take it out and charge its client."""
        counters = self._class_of(sequence).counters
        counters.choose(sequence.request.fairness_key)
        counters.charge(sequence.request.fairness_key, cost)
        self.take_out(sequence)

    def charge(self, sequence: Sequence, cost: int) -> None:
        """A live sequence was served."""
        self._class_of(sequence).counters.charge(sequence.request.fairness_key, cost)

    def leave(self, sequence: Sequence) -> None:
        """A sequence that does not wait ends."""
        service = self._class_of(sequence)
        service.leave(sequence)
        if not service.num_live:
            del self._classes[sequence.request.priority]

    def _class_of(self, sequence: Sequence) -> ServiceClass:
        return self._classes[sequence.request.priority]


class ServiceClass:
    """The sequences of one priority."""

    def __init__(self) -> None:
        self.counters = VirtualTokenCounters()
        self.preempted: list[Sequence] = []
        """By arrival."""
        self.clients: dict[str, OrderedDict[str, Sequence]] = {}
        """By fairness key, then by request id in the order of arrival; no client without sequences."""
        self.num_live: Counter[str] = Counter()
        """By fairness key: waiting and running."""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits."""
        return bool(self.preempted or self.clients)

    def add(self, sequence: Sequence) -> None:
        """See `WaitingQueue.add`."""
        key = sequence.request.fairness_key
        if key not in self.clients:
            self.counters.enter(key, self.clients)
            self.clients[key] = OrderedDict()
        self.clients[key][sequence.request_id] = sequence
        self.num_live[key] += 1

    def take_out(self, sequence: Sequence) -> None:
        """See `WaitingQueue.take_out`."""
        if sequence in self.preempted:
            self.preempted.remove(sequence)
            return
        key = sequence.request.fairness_key
        del self.clients[key][sequence.request_id]
        if not self.clients[key]:
            del self.clients[key]

    def leave(self, sequence: Sequence) -> None:
        """See `WaitingQueue.leave`."""
        key = sequence.request.fairness_key
        self.num_live[key] -= 1
        if not self.num_live[key]:
            del self.num_live[key]
            self.counters.forget_absent(self.num_live)


class FairWalk(Iterator[Sequence]):
    """The waiting sequences of one class in the order of service.

    `charge` tells the walk that the sequence it gave last would be served, which moves its client back.
    """

    def __init__(self, service: ServiceClass) -> None:
        self._preempted = iter(service.preempted)
        self._clients: list[tuple[int, int, str, Iterator[Sequence]]] = []
        """Heap of: counter, arrival and key of the client's next sequence, and the sequences from there on."""
        self._current: tuple[int, str, Iterator[Sequence]] | None = None
        """The client of the sequence given last."""
        self._heads: dict[str, Sequence] = {}
        for key, sequences in service.clients.items():
            self._push(service.counters[key], key, iter(sequences.values()))

    def __next__(self) -> Sequence:
        for sequence in self._preempted:
            return sequence
        if self._current is not None:
            self._push(*self._current)
            self._current = None
        if not self._clients:
            raise StopIteration
        counter, _, key, rest = heapq.heappop(self._clients)
        self._current = (counter, key, rest)
        return self._heads.pop(key)

    def charge(self, cost: int) -> None:
        """Plan to serve the sequence given last; one that was preempted costs nothing."""
        if self._current is not None:
            counter, key, rest = self._current
            self._current = (counter + cost, key, rest)

    def _push(self, counter: int, key: str, rest: Iterator[Sequence]) -> None:
        head = next(rest, None)
        if head is not None:
            self._heads[key] = head
            heapq.heappush(self._clients, (counter, head.arrival, key, rest))
