"""The prefix tree: exact matches under one salt, locks, recency, and books that balance."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.page_node import PageKey, PageNode
from engine.pages import PagePool
from engine.radix_cache import RadixCache

PAGE_SIZE = 2


def page_keys(token_ids: list[int]) -> list[PageKey]:
    """Cut tokens into full pages."""
    return [tuple(token_ids[i : i + PAGE_SIZE]) for i in range(0, len(token_ids) - PAGE_SIZE + 1, PAGE_SIZE)]


class TreeUser:
    """Uses the tree as a sequence does."""

    def __init__(self, num_pages: int = 64) -> None:
        self.pool = PagePool(num_pages)
        self.tree = RadixCache(self.pool, PAGE_SIZE)

    def match(self, salt: bytes, token_ids: list[int]) -> PageNode | None:
        """Look up."""
        return self.tree.match_prefix(salt, page_keys(token_ids), len(token_ids))

    def store(self, salt: bytes, token_ids: list[int]) -> PageNode:
        """Compute every full page and put it in; gives the deepest node, locked."""
        node = self.tree.lock(salt, None)
        for key in page_keys(token_ids):
            (page_id,) = islice(self.pool.free_pages(), 1)
            self.pool.take((page_id,))
            node = self.tree.insert(node, key, page_id)
            self.pool.release((page_id,))
        return node

    def store_and_leave(self, salt: bytes, token_ids: list[int]) -> PageNode:
        """Put in, and hold nothing of it."""
        node = self.store(salt, token_ids)
        self.tree.unlock(node)
        return node

    def evict(self, num_pages: int) -> None:
        """Evict the least recently used pages."""
        self.tree.evict(tuple(islice(self.tree.least_recent(), num_pages)))

    def check(self, *locked: PageNode) -> None:
        """The tree's books and the pool's."""
        self.tree.check_integrity(locked)
        self.pool.check_integrity([self.tree.held_pages()])


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from((b"a", b"b")), TOKENS), max_size=6), st.sampled_from((b"a", b"b")), TOKENS)
def test_a_match_is_the_longest_stored_prefix_of_the_same_salt_but_never_everything(stored, salt, wanted):
    """Compared with a plain list of what was stored: exact, per salt, and at least one token is left to compute."""
    user = TreeUser(num_pages=40)
    for stored_salt, token_ids in stored:
        user.store_and_leave(stored_salt, token_ids)
    user.check()
    keys = page_keys(wanted)
    known = {tuple(page_keys(t)[:n]) for s, t in stored if s == salt for n in range(1, 1 + len(page_keys(t)))}
    most = (len(wanted) - 1) // PAGE_SIZE
    expected = max((n for n in range(1, most + 1) if tuple(keys[:n]) in known), default=0)
    match = user.match(salt, wanted)
    assert (match.depth if match else 0) == expected
    assert expected * PAGE_SIZE < len(wanted)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(("store", "leave", "evict", "discard")), st.sampled_from((b"", b"s")), TOKENS),
        max_size=25,
    )
)
def test_the_books_balance_after_any_use(operations):
    """Locks, recency, sizes, roots and page references stay consistent, and locked paths stay matched."""
    user = TreeUser(num_pages=12)
    locked: list[tuple[bytes, list[int], PageNode]] = []
    for operation, salt, token_ids in operations:
        if operation == "store" and user.pool.num_free > len(token_ids):
            locked.append((salt, token_ids, user.store(salt, token_ids)))
        elif operation in {"leave", "discard"} and locked:
            _, _, node = locked.pop(len(token_ids) % len(locked))
            user.tree.unlock(node)
            if operation == "discard":
                user.tree.discard(node)
        elif operation == "evict":
            user.evict(len(token_ids))
        user.check(*(node for _, _, node in locked))
        for locked_salt, locked_tokens, node in locked:
            match = user.match(locked_salt, [*locked_tokens, 9])
            assert match is node


def test_another_salt_never_hits():
    """Equal tokens under another root are unknown, also under the empty salt."""
    user = TreeUser()
    user.store_and_leave(b"tenant", [1, 2, 3, 4])
    assert user.match(b"tenant", [1, 2, 3, 4, 5]).depth == 2
    assert user.match(b"other", [1, 2, 3, 4, 5]) is None
    assert user.match(b"", [1, 2, 3, 4, 5]) is None


def test_tokens_with_equal_hashes_are_not_confused():
    """-1 and -2 have one hash in Python; the tokens themselves are compared."""
    user = TreeUser()
    user.store_and_leave(b"", [-1, -1])
    assert hash((-1, -1)) == hash((-2, -1)) == hash((-2, -2))
    assert user.match(b"", [-2, -2, 0]).depth == 0
    assert user.match(b"", [-1, -1, 0]).depth == 1


def test_the_last_token_is_always_left_to_compute():
    """A prompt that is cached to its very end still has something to compute."""
    user = TreeUser()
    user.store_and_leave(b"", [1, 2, 3, 4])
    assert user.match(b"", [1, 2, 3, 4]).depth == 1
    assert user.match(b"", [1, 2]).depth == 0


def test_the_least_recently_used_leaf_goes_first():
    """Use makes young; a parent outlives its children."""
    user = TreeUser()
    old = user.store_and_leave(b"", [1, 1, 2, 2])
    young = user.store_and_leave(b"", [3, 3])
    assert list(user.tree.least_recent()) == [old, old.parent, young]
    user.tree.unlock(user.tree.lock(b"", old.parent))
    assert list(user.tree.least_recent()) == [old, young, old.parent]
    user.evict(2)
    user.check()
    assert user.match(b"", [1, 1, 2, 2, 0]) is old.parent
    assert user.match(b"", [3, 3, 0]).depth == 0


def test_a_locked_path_cannot_be_evicted():
    """Neither by the order nor by force."""
    user = TreeUser()
    node = user.store(b"", [1, 1, 2, 2])
    assert list(user.tree.least_recent()) == []
    with pytest.raises(AssertionError, match="evicted under 1 locks"):
        user.tree.evict((node,))


def test_a_parent_cannot_be_evicted_before_its_children():
    """A path never hangs in the air."""
    user = TreeUser()
    node = user.store_and_leave(b"", [1, 1, 2, 2])
    with pytest.raises(AssertionError, match="evicted from under 1 pages"):
        user.tree.evict((node.parent,))


def test_a_page_that_is_there_already_is_not_replaced():
    """Whoever computed the same tokens second goes on with the first one's page."""
    user = TreeUser()
    first = user.store(b"", [1, 1])
    user.pool.take((60,))
    second = user.tree.insert(user.tree.lock(b"", None), (1, 1), 60)
    assert second is first
    assert (second.num_locks, second.page_id, user.tree.num_pages) == (2, first.page_id, 1)


def test_matching_changes_nothing():
    """Not even what is evicted next."""
    user = TreeUser()
    user.store_and_leave(b"", [1, 1])
    user.store_and_leave(b"", [2, 2])
    before = list(user.tree.least_recent())
    user.match(b"", [1, 1, 0])
    assert list(user.tree.least_recent()) == before


def test_an_evicted_tree_keeps_nothing_of_a_salt():
    """Memory is bounded by pages: a salt without pages and users is forgotten."""
    user = TreeUser()
    for number in range(20):
        user.store_and_leave(str(number).encode(), [1, 1])
    user.evict(20)
    user.tree.unlock(user.tree.lock(b"never stored", None))
    user.check()
    assert (user.tree.num_pages, user.tree._roots, user.pool.num_free) == (0, {}, 64)


def test_a_discarded_path_takes_what_was_built_on_it_but_not_what_others_hold():
    """Contents that are not trusted go, with their continuations; pages in use stay until they are released."""
    user = TreeUser()
    held = user.store(b"", [1, 1])
    user.store_and_leave(b"", [1, 1, 2, 2, 3, 3])
    suspect = user.store_and_leave(b"", [1, 1, 2, 2])
    user.tree.discard(suspect)
    user.check(held)
    assert user.match(b"", [1, 1, 2, 2, 3, 3, 0]) is held
    assert user.tree.num_pages == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _, node: setattr(node, "num_locks", 2), "counts 2 locks, 1 sequences go through it"),
        (lambda tree, _: setattr(tree, "_num_nodes", 5), "nodes are lost: 5 counted, 3 reachable"),
        (lambda tree, _: tree._unlocked.move_to_end(next(tree.least_recent())), "is older than a child"),
        (lambda tree, _: setattr(tree._roots[b""], "num_locks", 4), "4 root locks != 1 users"),
    ],
)
def test_the_integrity_check_finds_each_kind_of_damage(damage, message):
    """Each sum has a message of its own."""
    user = TreeUser()
    locked = user.store(b"", [1, 1])
    user.store_and_leave(b"", [2, 2, 3, 3])
    user.check(locked)
    damage(user.tree, locked)
    with pytest.raises(AssertionError, match=message):
        user.tree.check_integrity([locked])
