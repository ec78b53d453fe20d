"""Pages and prefix tree together, as a sequence sees them: found, held, filled, shared, given back.

Invariants: a page outside the tree has one holder, the only sequence that writes it; a page in the tree is full and is
never written; a running sequence's full pages are in the tree (when there is one), so whoever comes next finds them.
`PageForecast` answers a planner's "what if" without changing anything; the other methods belong to commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from engine.page_node import PageNode
from engine.pages import PagePool
from engine.radix_cache import RadixCache
from engine.sequence import Sequence


class KvMemory:
    """Owner of pool and tree."""

    def __init__(self, num_pages: int, page_size: int, *, enable_prefix_cache: bool) -> None:
        self.pool = PagePool(num_pages)
        self.tree = RadixCache(self.pool, page_size)
        self.page_size = page_size
        self.shares_pages = enable_prefix_cache
        """Whether full pages go into the tree; if not, it stays empty."""

    @property
    def num_pages(self) -> int:
        """All pages."""
        return self.pool.num_pages

    @property
    def num_live_pages(self) -> int:
        """Pages that sequences hold, shared ones once."""
        return self.pool.num_pages - self.pool.num_free - self.tree.num_unlocked

    def num_pages_for(self, num_tokens: int) -> int:
        """Pages that so many tokens fill or begin."""
        return -(-num_tokens // self.page_size)

    def match(self, sequence: Sequence) -> PageNode | None:
        """Find what the tree holds of this sequence.  Changes nothing."""
        if not self.shares_pages:
            return None
        return self.tree.match_prefix(sequence.request.cache_salt, sequence.page_keys(), sequence.num_tokens)

    def attach(self, sequence: Sequence, match: PageNode | None) -> None:
        """Give the sequence the cached prefix that it was matched with."""
        assert sequence.node is None, f"{len(sequence.page_ids)} pages are attached already"
        sequence.node = self.tree.lock(sequence.request.cache_salt, match)
        sequence.page_ids = sequence.node.page_ids()
        sequence.num_computed = len(sequence.page_ids) * self.page_size
        self.pool.retain(sequence.page_ids)

    def extend(self, sequence: Sequence, page_ids: tuple[int, ...]) -> None:
        """Give the sequence free pages to write."""
        self.pool.take(page_ids)
        sequence.page_ids += page_ids

    def share_full_pages(self, sequence: Sequence) -> None:
        """Put the pages that computation has filled into the tree; they are read-only from now on.

        Where the tree holds the same tokens already, the sequence goes on with the tree's page and frees its own.
        """
        node = sequence.node
        assert node is not None, "a sequence that does not run has filled a page"
        num_full = sequence.num_computed // self.page_size
        if not self.shares_pages or node.depth == num_full:
            return
        page_ids = list(sequence.page_ids)
        for index in range(node.depth, num_full):
            node = self.tree.insert(node, sequence.page_key(index), page_ids[index])
            if node.page_id != page_ids[index]:
                self.pool.retain((node.page_id,))
                self.pool.release((page_ids[index],))
                page_ids[index] = node.page_id
        sequence.page_ids = tuple(page_ids)
        sequence.node = node

    def release(self, sequence: Sequence) -> None:
        """Take all pages from the sequence; the tree keeps those it has, until they are evicted."""
        assert sequence.node is not None, "pages are released that were never attached"
        self.tree.unlock(sequence.node)
        self.pool.release(sequence.page_ids)
        sequence.node = None
        sequence.page_ids = ()
        sequence.num_computed = 0

    def release_untrusted(self, sequence: Sequence) -> None:
        """Release, and forget the cached pages too, as far as no other sequence holds them: they may be poisoned."""
        node = sequence.node
        self.release(sequence)
        assert node is not None  # release has said so
        self.tree.discard(node)

    def forecast(self) -> PageForecast:
        """Begin to think about the next step."""
        return PageForecast(self)

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Raise AssertionError unless every page and lock is accounted for.

        Args:
            running: all sequences that hold pages.
        """
        running = tuple(running)
        self.pool.check_integrity([*(sequence.page_ids for sequence in running), self.tree.held_pages()])
        nodes = [sequence.node for sequence in running if sequence.node is not None]
        assert len(nodes) == len(running), f"{len(running)} run, {len(nodes)} are attached to the tree"
        self.tree.check_integrity(nodes)
        for sequence, node in zip(running, nodes, strict=True):
            assert sequence.page_ids[: node.depth] == node.page_ids(), "shared pages differ from the tree's"
            assert len(sequence.page_ids) == self.num_pages_for(sequence.num_computed), (
                f"{len(sequence.page_ids)} pages for {sequence.num_computed} computed tokens"
            )
            writable = sequence.page_ids[node.depth :]
            shared = [page for page in writable if self.pool.num_holders(page) != 1]
            assert not shared, f"pages {shared[:8]} are writable and have several holders"


class PageForecast:
    """Pages as they would be if the plan so far were committed.

    Lives within one planning and mirrors what commit will do in this order: release, attach, evict, extend.
    Pages come free ones first, then released ones, then those of the tree, least recently used first.
    """

    def __init__(self, memory: KvMemory) -> None:
        self._memory = memory
        self._free = memory.pool.free_pages()
        self._released: deque[int] = deque()
        self._least_recent = memory.tree.least_recent()
        self._newly_unlocked: deque[PageNode] = deque()
        """Children before parents, as in the tree's own order."""
        self._unlocks: dict[PageNode, int] = {}
        self._protected: set[PageNode] = set()
        """Nodes that sequences admitted in this plan will lock."""
        self.evicted: dict[PageNode, None] = {}
        """In the order of eviction."""
        self.num_available = memory.pool.num_free + memory.tree.num_unlocked
        """Pages that `take` could still give."""

    def match(self, sequence: Sequence) -> PageNode | None:
        """Find what the tree will hold of this sequence after the evictions so far."""
        node = self._memory.match(sequence)
        while node is not None and node in self.evicted:
            node = node.parent
        return node

    def num_available_beside(self, match: PageNode | None) -> int:
        """Pages that `take` could still give if this path were protected."""
        if match is None:
            return self.num_available
        return self.num_available - sum(1 for node in match.path() if self._is_available(node))

    def release(self, sequence: Sequence) -> None:
        """Foresee that the sequence gives all its pages back."""
        node = sequence.node
        assert node is not None, "a sequence without pages is released"
        for unlocked in node.path():
            self._unlocks[unlocked] = self._unlocks.get(unlocked, 0) + 1
            if self._is_available(unlocked):
                self._newly_unlocked.append(unlocked)
                self.num_available += 1
        own = sequence.page_ids[node.depth :]
        self._released.extend(own)
        self.num_available += len(own)

    def protect(self, match: PageNode | None) -> None:
        """Foresee that an admitted sequence locks this path."""
        if match is None:
            return
        self.num_available = self.num_available_beside(match)
        self._protected.update(match.path())

    def take(self, num_pages: int) -> tuple[int, ...]:
        """Choose pages to write; there must be as many available."""
        assert num_pages <= self.num_available, f"{num_pages} pages are planned, {self.num_available} available"
        self.num_available -= num_pages
        return tuple(self._take_one() for _ in range(num_pages))

    def _take_one(self) -> int:
        for page_id in self._free:
            return page_id
        if self._released:
            return self._released.popleft()
        for node in self._least_recent:
            if node not in self._protected:
                return self._evict(node)
        while True:
            node = self._newly_unlocked.popleft()
            if node not in self._protected:
                return self._evict(node)

    def _evict(self, node: PageNode) -> int:
        self.evicted[node] = None
        return node.page_id

    def _is_available(self, node: PageNode) -> bool:
        return node.num_locks == self._unlocks.get(node, 0) and node not in self._protected and node not in self.evicted
