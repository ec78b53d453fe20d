"""The page pool: counts, conservation, and what it says when they do not hold."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pages import PagePool


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 6), st.lists(st.tuples(st.sampled_from(("take", "retain", "release")), st.integers(0, 5))))
def test_pages_are_conserved(num_pages, operations):
    """Whatever is taken, retained and released in whatever order: free + held = all, and counts are holders."""
    pool = PagePool(num_pages)
    holders: list[int] = []
    for operation, choice in operations:
        if operation == "take" and pool.num_free:
            page_ids = tuple(islice(pool.free_pages(), 1 + choice % pool.num_free))
            pool.take(page_ids)
            holders.extend(page_ids)
        elif operation == "retain" and holders:
            pool.retain((holders[choice % len(holders)],))
            holders.append(holders[choice % len(holders)])
        elif operation == "release" and holders:
            pool.release((holders.pop(choice % len(holders)),))
        pool.check_integrity([(page_id,) for page_id in holders])
        assert pool.num_free == num_pages - len(set(holders))


def test_a_page_is_free_when_its_last_holder_goes():
    """Two holders, two releases; in between it is not handed out."""
    pool = PagePool(1)
    pool.take((0,))
    pool.retain((0,))
    pool.release((0,))
    assert (pool.num_holders(0), list(pool.free_pages())) == (1, [])
    pool.release((0,))
    assert (pool.num_holders(0), list(pool.free_pages())) == (0, [0])


def test_the_page_that_is_free_for_longest_is_taken_first():
    """Reuse goes round."""
    pool = PagePool(3)
    pool.take((0, 1))
    pool.release((1, 0))
    assert list(pool.free_pages()) == [2, 1, 0]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda pool: pool.take((0,)), "page 0 is taken, but has 1 holders"),
        (lambda pool: pool.retain((1,)), "page 1 is retained, but nobody holds it"),
        (lambda pool: pool.release((1,)), "page 1 is released, but nobody holds it"),
    ],
)
def test_a_page_that_is_held_or_free_at_the_wrong_time_stops_the_engine(operation, message):
    """A double take, a retain or a release of a free page is a broken book, never a warning."""
    pool = PagePool(2)
    pool.take((0,))
    with pytest.raises(AssertionError, match=message):
        operation(pool)


def test_the_integrity_check_shows_the_sum_that_fails():
    """The message names the page and both counts."""
    pool = PagePool(2)
    pool.take((0,))
    with pytest.raises(AssertionError, match="page 0 counts 1 holders, 2 hold it"):
        pool.check_integrity([(0,), (0,)])


def test_a_lost_page_is_found():
    """A page that is neither free nor held shows in the conservation sum."""
    pool = PagePool(3)
    del pool._free[2]
    with pytest.raises(AssertionError, match=r"2 free \+ 0 held != 3"):
        pool.check_integrity([])


def test_a_pool_without_pages_is_refused():
    """Nothing could ever be computed."""
    with pytest.raises(ValueError, match="at least one page"):
        PagePool(0)
