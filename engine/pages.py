"""The page pool: who holds which KV page, by counts alone.

Invariants: every page is free, or held by at least one holder; free + held = all, always; a page is handed out only
while nobody holds it.  Never: contents, tokens, tensors, policy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator


class PagePool:
    """Owner of the reference counts.

    `free_pages` says in which order `take` may be asked for pages; a planner reads it and takes later, at commit.
    """

    def __init__(self, num_pages: int) -> None:
        if num_pages < 1:
            raise ValueError(f"a pool needs at least one page, not {num_pages}")
        self.num_pages = num_pages
        self._refs = [0] * num_pages
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_pages))
        """Pages without holders; the one that is free for longest first, so that reuse is spread evenly."""

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def free_pages(self) -> Iterator[int]:
        """Give the free pages, the next one to take first.  Valid until the pool changes."""
        return iter(self._free)

    def num_holders(self, page_id: int) -> int:
        """How many hold this page."""
        return self._refs[page_id]

    def take(self, page_ids: Iterable[int]) -> None:
        """Make the caller the one holder of each of these pages; they must be free."""
        for page_id in page_ids:
            assert self._refs[page_id] == 0, f"page {page_id} is taken, but has {self._refs[page_id]} holders"
            del self._free[page_id]
            self._refs[page_id] = 1

    def retain(self, page_ids: Iterable[int]) -> None:
        """Add a holder to each of these pages; they must have one already."""
        for page_id in page_ids:
            assert self._refs[page_id] > 0, f"page {page_id} is retained, but nobody holds it"
            self._refs[page_id] += 1

    def release(self, page_ids: Iterable[int]) -> None:
        """Take a holder from each of these pages; a page whose last holder goes is free."""
        for page_id in page_ids:
            assert self._refs[page_id] > 0, f"page {page_id} is released, but nobody holds it"
            self._refs[page_id] -= 1
            if self._refs[page_id] == 0:
                self._free[page_id] = None

    def check_integrity(self, holdings: Iterable[Iterable[int]]) -> None:
        """Raise AssertionError unless the counts are exactly what the holders say.

        Args:
            holdings: for each holder, the pages it holds.
        """
        expected = [0] * self.num_pages
        for page_ids in holdings:
            for page_id in page_ids:
                expected[page_id] += 1
        wrong = [page for page in range(self.num_pages) if expected[page] != self._refs[page]]
        assert not wrong, "pages with wrong counts: " + ", ".join(
            f"page {page} counts {self._refs[page]} holders, {expected[page]} hold it" for page in wrong[:8]
        )
        num_held = sum(count > 0 for count in self._refs)
        assert self.num_free + num_held == self.num_pages, (
            f"pages are lost: {self.num_free} free + {num_held} held != {self.num_pages}"
        )
        stray = [page for page in self._free if self._refs[page] != 0]
        assert not stray, f"pages {stray[:8]} are free and held"
