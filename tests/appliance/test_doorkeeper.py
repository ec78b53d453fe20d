"""Refused credentials: recorded, but a flood of them cannot fill the disk."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.api.doorkeeper import REFUSALS_AT_ONCE, REFUSALS_PER_S, RefusalBudget


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=300))
def test_refusals_are_all_counted_and_few_are_recorded(gaps: list[float]):
    """Law: recorded + suppressed = refused, and no more are recorded than the rate allows."""
    budget, now, recorded, suppressed = RefusalBudget(), 0.0, 0, 0
    for gap in gaps:
        now += gap
        left_out = budget.take(now)
        if left_out is not None:
            recorded += 1
            suppressed += left_out
    assert recorded + suppressed + budget.num_suppressed == len(gaps)
    assert recorded <= REFUSALS_AT_ONCE + REFUSALS_PER_S * now + 1
