"""One full KV page as a node of the prefix tree: what a sequence that holds it may know of it.

Owner of every field is `engine.radix_cache.RadixCache`; everybody else reads.

Never: frees, shares or looks up a page; the cache does.
"""

from __future__ import annotations

from collections.abc import Iterator

PageKey = tuple[int, ...]
"""The tokens of one full page."""


class PageNode:
    """One full page below its parent; identity is its equality."""

    __slots__ = ("children", "depth", "key", "num_locks", "page_id", "parent", "salt")

    def __init__(self, salt: bytes, parent: PageNode | None, key: PageKey, page_id: int) -> None:
        self.salt = salt
        self.parent = parent
        """None for a root."""
        self.key = key
        self.page_id = page_id
        """-1 for a root, which holds no page."""
        self.depth: int = 0 if parent is None else parent.depth + 1
        """Pages from the root to here, this one included."""
        self.children: dict[PageKey, PageNode] = {}
        self.num_locks = 0
        """Sequences whose path goes through here."""

    def path(self) -> Iterator[PageNode]:
        """Give this node and its ancestors up to, without, the root: deepest first."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def page_ids(self) -> tuple[int, ...]:
        """Give the pages of the path in the order of the tokens."""
        return tuple(node.page_id for node in self.path())[::-1]
