"""What the writer lets pass, the verifier does not name: both ask one rule how far clocks part by themselves."""

from __future__ import annotations

import dataclasses

from audit_log_builder import PLACE, make_event
from hypothesis import given, settings
from hypothesis import strategies as st

import audit.guards
import audit.slew
import audit.verification.leaf_checks
from audit.guards import ClockGuard, Clocks
from audit.leaf import Leaf
from audit.report import FindingList
from audit.slew import slew_allowance_us
from audit.verification.leaf_checks import LeafChecks

LIMIT_US = 5_000_000


def test_a_day_may_stretch_by_a_thousandth() -> None:
    """The number itself, and both signs."""
    assert slew_allowance_us(86_400 * 10**9) == 86_400_000
    assert slew_allowance_us(-86_400 * 10**9) == 86_400_000
    assert slew_allowance_us(0) == 0


def test_writer_and_verifier_ask_the_same_rule() -> None:
    """There is one, and neither has a copy."""
    assert audit.guards.slew_allowance_us is audit.slew.slew_allowance_us
    assert audit.verification.leaf_checks.slew_allowance_us is audit.slew.slew_allowance_us
    for module in (audit.guards, audit.verification.leaf_checks):
        assert not any("SLEW" in name for name in vars(module))


@given(st.integers(0, 10**18), st.integers(-(10**13), 10**13))
@settings(max_examples=200, deadline=None)
def test_no_drift_that_the_writer_lets_pass_is_a_finding(elapsed_ns: int, drift_us: int) -> None:
    """Two events of one run, the clocks apart by any drift in between."""
    first = make_event(0, "a:b")
    monotonic_ns = first.monotonic_ns
    wall_us = first.ts_us
    guard = ClockGuard(Clocks(lambda: wall_us, lambda: monotonic_ns), LIMIT_US)
    monotonic_ns += elapsed_ns
    wall_us = max(0, wall_us + elapsed_ns // 1_000 + drift_us)
    if guard.stepped() is not None:
        return
    findings = FindingList()
    checks = LeafChecks(None, LIMIT_US, findings)
    checks.accept(0, Leaf(0, 0, PLACE, first))
    second = dataclasses.replace(first, ts_us=wall_us, monotonic_ns=monotonic_ns)
    checks.accept(1, Leaf(1, 0, PLACE, second))
    assert findings.findings == []
