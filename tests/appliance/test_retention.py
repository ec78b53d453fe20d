"""Retention: profiles as data, a floor nobody lowers in silence, and the pure decision on what may go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walk_bench import WalkBench

from appliance.audit_trail import Kind
from appliance.identity.principal import Principal
from appliance.keeping.holds import Hold, OnPerson, OnRange, OnTenant, Person
from appliance.keeping.pruning import (
    MayPrune,
    MustStay,
    PruneAsk,
    PruneSituation,
    UnverifiedExport,
    VerifiedExport,
    may_prune,
    prunable_below,
)
from appliance.keeping.retention import (
    FloorHolds,
    FloorLowered,
    LoweringApproved,
    StatedFloor,
    judge_floor,
    state_retention,
)
from appliance.keeping.retention_profiles import RetentionFloor, floor_of, read_profiles
from appliance.settings import SettingsRefused, read_settings
from audit.beside import BLOCK_LEN
from audit.event import Pruned
from audit.reader import EntryFilter

NAMES = sorted(read_profiles())
CHOICES = st.lists(st.sampled_from(NAMES), min_size=1)
OFFICER = Principal("priya", "User", "plant", ("privacy",), 0, "key-p")


def test_the_profiles_say_what_the_rules_ask_for():
    """AI Act 183 days; PCI twelve months, three at hand; HIPAA and SEC six years."""
    days = {name: (one.leaf_days, one.content_days, one.at_hand_days) for name, one in read_profiles().items()}
    assert days == {
        "ai-act": (183, 0, 0),
        "hipaa": (2192, 0, 0),
        "pci": (366, 0, 92),
        "sec": (2192, 2192, 731),
    }


@given(CHOICES, CHOICES)
def test_more_profiles_never_lower_a_floor(some, more):
    """The floor is the maximum: choosing another profile as well only ever lengthens it, in any order."""
    floor, longer = floor_of(some), floor_of([*some, *more])
    assert not longer.is_below(floor)
    assert floor_of(reversed([*some, *more])) == longer


@given(CHOICES, CHOICES, st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_a_lower_floor_takes_a_fresh_approval_of_exactly_these_profiles(before, after, stated, approved, is_other):
    """Whatever the order of the leaves."""
    old, new = StatedFloor(stated, floor_of(before)), floor_of(after)
    approval = LoweringApproved(approved, floor_of([*after, "ai-act" if is_other else after[0]]))
    verdict = judge_floor(new, old, approval)
    if not new.is_below(old.floor):
        assert verdict == FloorHolds(None)
    elif approved > stated and frozenset(approval.floor.profiles) == frozenset(after):
        assert verdict == FloorHolds(approved)
    else:
        assert verdict == FloorLowered(old)


@pytest.mark.parametrize("clock", ["leaf_days", "content_days"])
def test_profiles_that_ask_for_less_than_was_approved_lower_in_silence_and_may_not(clock: str):
    """The name was approved, and the data behind it changed after that."""
    old, agreed = StatedFloor(1, RetentionFloor(("sec",), 2192, 2192)), RetentionFloor(("pci",), 366, 30)
    approval = LoweringApproved(2, agreed)
    assert judge_floor(agreed, old, approval) == FloorHolds(2)
    assert judge_floor(replace(agreed, **{clock: 1}), old, approval) == FloorLowered(old)


def test_a_setting_that_names_no_profile_is_refused(monkeypatch):
    """By its name, with those that exist."""
    for value in ('["ai-act", "gdpr"]', "[]"):
        monkeypatch.setenv("CLOISTER_RETENTION_PROFILES", value)
        with pytest.raises(SettingsRefused, match="RETENTION_PROFILES"):
            read_settings()


# Starts on a real log


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


def started(bench: WalkBench, *profiles: str) -> RetentionFloor:
    """What a start does."""
    return asyncio.run(state_retention(bench.trail, bench.reader, profiles))


def approved(bench: WalkBench, *profiles: str) -> int:
    """Two people's word."""
    facts = floor_of(profiles).facts() if profiles else {**floor_of(["ai-act"]).facts(), "profiles": []}
    return asyncio.run(bench.trail.append(Kind.RETENTION_LOWERED, OFFICER, "req-1", facts)).index


def stated(bench: WalkBench) -> list[dict]:
    """The floors that starts have stated."""
    return [dict(entry.leaf.event.facts) for entry in bench.reader.entries(EntryFilter(kind="retention:set")).entries]


def test_a_lowered_floor_is_refused_at_the_start_and_recorded(bench: WalkBench):
    """The message names the setting, both floors and the entry; nothing was stated."""
    started(bench, "hipaa", "pci")
    with pytest.raises(SettingsRefused, match=r"CLOISTER_RETENTION_PROFILES.*183.*2192.*entry 0"):
        started(bench, "ai-act")
    (refused,) = bench.reader.entries(EntryFilter(kind="act:refused")).entries
    assert refused.leaf.event.facts["code"] == "retention_lowered"
    assert len(stated(bench)) == 1
    started(bench, "hipaa")


def test_a_shorter_clock_for_contents_alone_is_a_lowered_floor(bench: WalkBench):
    """The two clocks are two floors."""
    started(bench, "sec")
    with pytest.raises(SettingsRefused):
        started(bench, "hipaa")


def test_an_approved_lowering_serves_one_start(bench: WalkBench):
    """It is named where the lower floor is stated; going up again and down once more takes another."""
    started(bench, "hipaa")
    exception = approved(bench, "ai-act")
    started(bench, "ai-act")
    assert stated(bench)[-1]["exception_index"] == exception
    started(bench, "hipaa")
    with pytest.raises(SettingsRefused):
        started(bench, "ai-act")


@pytest.mark.parametrize("other", [("pci",), ("ai-act", "pci"), ()])
def test_an_approval_of_other_profiles_lowers_nothing(bench: WalkBench, other):
    """Exactly those that two people saw."""
    started(bench, "hipaa")
    approved(bench, *other)
    with pytest.raises(SettingsRefused):
        started(bench, "ai-act")


def test_an_approval_before_the_floor_was_stated_is_old(bench: WalkBench):
    """Kept for later, it would be a lowering in silence."""
    approved(bench, "ai-act")
    started(bench, "hipaa")
    with pytest.raises(SettingsRefused):
        started(bench, "ai-act")


# The decision on pruning

SCOPES = st.one_of(
    st.just(OnPerson(Person("plant", "alice"))),
    st.just(OnTenant("plant")),
    st.tuples(st.integers(0, 3000), st.integers(0, 3000)).map(lambda pair: OnRange(min(pair), max(pair))),
)
HOLDS = st.lists(st.builds(Hold, st.integers(0, 3000), SCOPES, st.just("x"), st.just("priya"), st.just(0)), max_size=2)
SITUATIONS = st.builds(
    PruneSituation,
    size=st.integers(0, 3000),
    pruned_below=st.sampled_from([0, 256, 512]),
    young_from=st.integers(0, 3000),
    holds=HOLDS.map(tuple),
    needed_from=st.none() | st.integers(0, 3000),
)
ASKS = st.builds(
    PruneAsk, st.sampled_from(Pruned), st.integers(0, 3000) | st.integers(1, 11).map(lambda blocks: blocks * BLOCK_LEN)
)
EXPORTS = st.one_of(st.just(UnverifiedExport("x")), st.builds(VerifiedExport, st.just("d"), st.integers(0, 3000)))


@given(ASKS, SITUATIONS, EXPORTS)
def test_what_may_be_pruned_breaks_no_law(ask, situation, export):
    """Written from the laws, not from the code: an allow breaks none, a refusal breaks at least one."""
    broken = [
        ask.below > situation.size,
        ask.below <= situation.pruned_below,
        ask.what is Pruned.LEAF and ask.below % BLOCK_LEN != 0,
        ask.below > situation.young_from,
        any(not isinstance(hold.scope, OnRange) and ask.below > 0 for hold in situation.holds),
        any(isinstance(hold.scope, OnRange) and hold.scope.first < ask.below for hold in situation.holds),
        ask.what is Pruned.LEAF and any(hold.index < ask.below for hold in situation.holds),
        ask.what is Pruned.LEAF and situation.needed_from is not None and situation.needed_from < ask.below,
        isinstance(export, UnverifiedExport) or export.size < ask.below,
    ]
    verdict = may_prune(ask, situation, export)
    assert isinstance(verdict, MayPrune) == (not any(broken)), verdict
    assert isinstance(verdict, MayPrune) or (verdict.code and verdict.why)


@given(st.sampled_from(Pruned), SITUATIONS)
def test_what_is_said_to_be_prunable_is(what, situation):
    """The figure that `cloister audit retention` shows is the largest that would be allowed, with an export of all."""
    export = VerifiedExport("d", situation.size)
    limit = prunable_below(what, situation)
    if limit > situation.pruned_below:
        assert may_prune(PruneAsk(what, limit), situation, export) == MayPrune()
    step = BLOCK_LEN if what is Pruned.LEAF else 1
    assert isinstance(may_prune(PruneAsk(what, limit + step), situation, export), MustStay)
