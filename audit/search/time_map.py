"""Which stretches of the log can hold a time: exact whatever the clock did.

A leaf's time does not grow with its index when the clock is set back, so no seek by time gives a place in the log.
This map holds the earliest and the latest time of every block of `BLOCK_LEN` leaves, read once from the leaves' own
column and extended by what was appended since; a log is never changed, so what was read stays true.  Memory: 16 bytes
for each block.  A stretch that the map leaves out holds no leaf of that time; one that it names is looked at leaf by
leaf.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from threading import Lock

from sqlalchemy import Connection, func, select

from audit.schema import leaf_table
from audit.search.fields import RANGE_END
from audit.search.normal_form import Stretch

BLOCK_LEN = 1_024


class TimeMap:
    """The map of one log, shared by all who search it."""

    def __init__(self, *, block_len: int = BLOCK_LEN) -> None:
        self._block_len = block_len
        self._lock = Lock()
        # All under the lock: one item for each whole block from index 0 on.
        self._earliest = array("q")
        self._latest = array("q")

    def stretches(self, connection: Connection, size: int, time: Stretch) -> tuple[Stretch, ...]:
        """Return, in order, the stretches of indexes below `size` outside of which no leaf is of this time.

        The newest leaves, which fill no block yet, are always named.
        """
        num_blocks = size // self._block_len
        with self._lock:
            self._extend(connection, num_blocks)
            found = [
                block
                for block, (earliest, latest) in enumerate(zip(self._earliest, self._latest, strict=True))
                if block < num_blocks and earliest < time[1] and latest >= time[0]
            ]
        length = self._block_len
        blocks = [(block * length, (block + 1) * length) for block in found]
        return tuple(_merged([*blocks, (num_blocks * length, size)]))

    def _extend(self, connection: Connection, num_blocks: int) -> None:
        idx, ts_us = leaf_table.c.idx, leaf_table.c.ts_us
        for block in range(len(self._earliest), num_blocks):
            low = block * self._block_len
            query = select(func.min(ts_us + 0), func.max(ts_us + 0)).where(idx >= low, idx < low + self._block_len)
            earliest, latest = connection.execute(query).one()
            self._earliest.append(RANGE_END if earliest is None else earliest)  # pruned: no leaf is there
            self._latest.append(-1 if latest is None else latest)


def _merged(stretches: list[Stretch]) -> Iterator[Stretch]:
    low, high = stretches[0]
    for next_low, next_high in stretches[1:]:
        if next_low == high:
            high = next_high
            continue
        yield low, high
        low, high = next_low, next_high
    if low < high:
        yield low, high
