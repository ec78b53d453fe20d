"""The prefix tree: full KV pages found again by the exact tokens they hold, under one root per salt.

A path from a root spells the tokens of a prefix, one page per node, so a page stands for all tokens above it too.
Invariants: nodes compare tokens, never only hashes; a path lies under one salt, so another salt never hits; a locked
node's ancestors are locked; an unlocked node has only unlocked descendants and is older than its parent; the tree holds
exactly one reference to each node's page, so it is never larger than the pool.  Never: partly filled pages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from engine.page_node import PageKey, PageNode
from engine.pages import PagePool


class RadixCache:
    """Owner of the tree and of its references to pages."""

    def __init__(self, pool: PagePool, page_size: int) -> None:
        self._pool = pool
        self._page_size = page_size
        self._roots: dict[bytes, PageNode] = {}
        """A root lives while it has children or locks."""
        self._unlocked: OrderedDict[PageNode, None] = OrderedDict()
        """Nodes without locks, least recently used first.  Children stand before their parents, because paths are
        unlocked from their deep end; so the first one is always a leaf."""
        self._num_nodes = 0

    @property
    def num_pages(self) -> int:
        """Pages in the tree."""
        return self._num_nodes

    @property
    def num_unlocked(self) -> int:
        """Pages that only the tree holds: all of them can be evicted."""
        return len(self._unlocked)

    def match_prefix(self, salt: bytes, page_keys: Iterable[PageKey], num_tokens: int) -> PageNode | None:
        """Find the longest cached prefix; changes nothing, not even recency.

        The last token is never matched: it must be computed, so that there are logits.

        Args:
            salt: the root to look under.
            page_keys: the sequence's full pages in order; read only as far as they match.
            num_tokens: tokens of the sequence.

        Returns:
            The deepest matching node, the root when only the salt is known, None when not even that.
        """
        node = self._roots.get(salt)
        if node is None:
            return None
        max_depth = (num_tokens - 1) // self._page_size
        for key in page_keys:
            child = node.children.get(key) if node.depth < max_depth else None
            if child is None:
                break
            node = child
        return node

    def lock(self, salt: bytes, node: PageNode | None) -> PageNode:
        """Protect the path down to `node` (None: the root alone) until it is unlocked; gives the locked node."""
        if node is None or node.parent is None:
            node = self._roots.setdefault(salt, PageNode(salt, None, (), -1))
        root = self._roots[node.salt]
        root.num_locks += 1
        for locked in node.path():
            self._add_lock(locked)
        return node

    def unlock(self, node: PageNode) -> None:
        """Undo one `lock` of this path; what nobody else locks may be evicted from now on, deepest first."""
        for unlocked in node.path():
            unlocked.num_locks -= 1
            assert unlocked.num_locks >= 0, f"page {unlocked.page_id} is unlocked once too often"
            if unlocked.num_locks == 0:
                self._unlocked[unlocked] = None
        root = self._roots[node.salt]
        root.num_locks -= 1
        self._drop_root_if_unused(root)

    def insert(self, parent: PageNode, key: PageKey, page_id: int) -> PageNode:
        """Add one full page below a node that the caller has locked, and extend its lock to it.

        Returns:
            The new node; or the one that stands there already for these tokens, with another page: the caller then
            goes on with that page and gives its own back.
        """
        assert len(key) == self._page_size, f"a page of {self._page_size} tokens is inserted with {len(key)}"
        assert parent.num_locks > 0, f"page {page_id} is inserted below a path that nobody locks"
        node = parent.children.get(key)
        if node is None:
            node = PageNode(parent.salt, parent, key, page_id)
            parent.children[key] = node
            self._pool.retain((page_id,))
            self._num_nodes += 1
            node.num_locks = 1
        else:
            self._add_lock(node)
        return node

    def least_recent(self) -> Iterator[PageNode]:
        """Give the unlocked nodes in the order in which to evict them.  Valid until the tree changes."""
        return iter(self._unlocked)

    def evict(self, nodes: Iterable[PageNode]) -> None:
        """Forget unlocked leaves and give up their pages; a node may follow its last child."""
        for node in nodes:
            assert node.num_locks == 0, f"page {node.page_id} is evicted under {node.num_locks} locks"
            assert not node.children, f"page {node.page_id} is evicted from under {len(node.children)} pages"
            assert node.parent is not None, "a root is evicted"
            del node.parent.children[node.key]
            del self._unlocked[node]
            self._num_nodes -= 1
            self._pool.release((node.page_id,))
            if node.parent.parent is None:
                self._drop_root_if_unused(node.parent)

    def discard(self, node: PageNode) -> None:
        """Forget, of this path, what nobody locks, and all that was built on it: its contents are not trusted."""
        suspects = [suspect for suspect in node.path() if suspect.num_locks == 0]
        if not suspects:
            return
        subtree = [suspects[-1]]
        for suspect in subtree:  # grows while it is walked: parents before children
            subtree.extend(suspect.children.values())
        self.evict(reversed(subtree))

    def held_pages(self) -> Iterator[int]:
        """Give every page that the tree holds, once."""
        return (node.page_id for node in self._nodes())

    def check_integrity(self, locked_paths: Sequence[PageNode]) -> None:
        """Raise AssertionError unless locks, recency and sizes are what the tree and its users say.

        Args:
            locked_paths: the node that each user has locked.
        """
        expected: dict[PageNode, int] = {}
        for user in locked_paths:
            for node in user.path():
                expected[node] = expected.get(node, 0) + 1
        nodes = tuple(self._nodes())
        for node in nodes:
            assert node.num_locks == expected.get(node, 0), (
                f"page {node.page_id} counts {node.num_locks} locks, {expected.get(node, 0)} sequences go through it"
            )
            assert (node.num_locks == 0) == (node in self._unlocked), f"page {node.page_id} is locked and evictable"
        num_locked = len(expected)
        assert self._num_nodes == len(nodes) == num_locked + len(self._unlocked), (
            f"nodes are lost: {self._num_nodes} counted, {len(nodes)} reachable, "
            f"{num_locked} locked + {len(self._unlocked)} unlocked"
        )
        seen: set[PageNode] = set()
        for node in self._unlocked:
            assert all(child in seen for child in node.children.values()), f"page {node.page_id} is older than a child"
            seen.add(node)
        num_root_locks = sum(root.num_locks for root in self._roots.values())
        assert num_root_locks == len(locked_paths), f"{num_root_locks} root locks != {len(locked_paths)} users"
        assert all(root.children or root.num_locks for root in self._roots.values()), "an unused root is kept"

    def _add_lock(self, node: PageNode) -> None:
        if node.num_locks == 0:
            del self._unlocked[node]
        node.num_locks += 1

    def _drop_root_if_unused(self, root: PageNode) -> None:
        if not root.children and root.num_locks == 0:
            del self._roots[root.salt]

    def _nodes(self) -> Iterator[PageNode]:
        pending = list(self._roots.values())
        while pending:
            children = pending.pop().children.values()
            yield from children
            pending.extend(children)
