"""The account of a run: what balances, and each planted fault by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit_trail import PAIRING, Kind
from appliance.reconciliation import TOKENS, Reconciliation, Verdict, reconcile
from audit.event import Event
from audit.leaf import Leaf, Place

ZERO = dict.fromkeys(TOKENS, 0)


def engine(prompt: int, cached: int, output: int, **late: int) -> dict:
    """Give the fact `engine` of a run's record."""
    return {**dict(zip(TOKENS, (prompt, cached, output), strict=True)), "late": {**ZERO, **late}, "restarts": 0}


class Script:
    """Writes leaves in order."""

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.epoch = 1

    def add(self, kind: str, subject: str = "appliance", **facts: object) -> Leaf:
        """Add one leaf."""
        event = Event(kind, 1, 1, "a", "", "", subject, facts)
        self.leaves.append(Leaf(len(self.leaves), 0, Place("n", f"boot-{self.epoch}", self.epoch), event))
        return self.leaves[-1]

    def admit(self, subject: str) -> int:
        """Admit a request."""
        return self.add(Kind.REQUEST_ADMITTED, subject).index

    def end(self, subject: str, admitted: int, usage: tuple[int, int, int] = (10, 4, 5), kind=Kind.REQUEST_COMPLETED):
        """End it."""
        return self.add(
            kind, subject, admitted_index=admitted, engine=dict(zip(TOKENS, usage, strict=True)), outcome="x"
        )

    def serve(self, *subjects: str) -> None:
        """Start a run and serve these requests whole, all admitted before the first has ended."""
        self.add(Kind.APPLIANCE_STARTED)
        indexes = [self.admit(subject) for subject in subjects]
        for subject, index in zip(subjects, indexes, strict=True):
            self.end(subject, index)

    def account(self, live: object = None) -> Reconciliation:
        """Reconcile what was written."""
        return reconcile(self.leaves, None if live is None else (self.epoch, live))


def findings(found: Reconciliation) -> list[tuple[str, int | None]]:
    """Give what was found, with its place."""
    return [(one.what, one.index) for run in found.runs for one in run.discrepancies]


def test_a_whole_run_balances() -> None:
    """Requests, ends, tokens; what the engine gave after a request was given up stands apart."""
    script = Script()
    script.serve("a", "b", "c")
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(30, 12, 17, output_tokens=2))
    found = script.account()
    assert (found.verdict, findings(found)) == (Verdict.BALANCED, [])
    [run] = found.runs
    assert (run.num_admitted, run.ends, run.num_open) == (3, {"request:completed": 3}, 0)
    assert run.recorded == run.counted == {"prompt_tokens": 30, "cached_tokens": 12, "output_tokens": 15}
    assert run.late == {**ZERO, "output_tokens": 2}
    assert (run.first_index, run.last_index, run.counted_by) == (0, 7, "appliance:stopped")


def test_a_lost_terminal_is_found() -> None:
    """In a run that has ended, by the request and the place of its admission; its tokens are missing too."""
    script = Script()
    script.serve("a", "b", "c")
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(30, 12, 15))
    lost = script.leaves.pop(5)
    assert (lost.event.kind, lost.event.subject) == ("request:completed", "b")
    found = script.account()
    assert found.verdict is Verdict.UNBALANCED
    [run] = found.runs
    assert (run.num_open, run.open_requests) == (1, (("b", 2),))
    assert findings(found)[0] == ("this request began and has no end", 2)
    assert run.recorded["output_tokens"] == 10


@pytest.mark.parametrize("place", ["in one record", "by a second record"])
def test_tokens_counted_twice_are_found(place: str) -> None:
    """Whether a record says too much or a request ends twice."""
    script = Script()
    script.serve("a", "b")
    if place == "in one record":
        doubled = script.leaves.pop()
        script.end("b", 2, (10, 4, 10))
        assert doubled.event.subject == "b"
    else:
        script.end("b", 2)
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(20, 8, 10))
    found = script.account()
    assert found.verdict is Verdict.UNBALANCED
    whats = [what for what, _ in findings(found)]
    assert any("15 output_tokens, the engine counted 10: counted twice" in what for what in whats)
    assert any("it ended twice" in what for what in whats) == (place == "by a second record")


def test_tokens_that_nobody_recorded_are_found() -> None:
    """The engine worked for somebody whom the log does not know."""
    script = Script()
    script.serve("a")
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(10, 4, 6))
    assert findings(script.account()) == [
        ("the log accounts for 5 output_tokens, the engine counted 6: not recorded", None)
    ]


def test_an_end_without_an_admission_is_found() -> None:
    """Its place and its request."""
    script = Script()
    script.serve("a")
    script.end("ghost", 1)
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(10, 4, 5))
    found = script.account()
    assert ("nothing is open that this ends: it ended twice, or never began", 3) in findings(found)


def test_an_end_that_names_another_admission_is_found() -> None:
    """The link from end to beginning is part of the account."""
    script = Script()
    script.serve("a", "b")
    script.leaves[4] = replace(
        script.leaves[4],
        event=replace(script.leaves[4].event, facts={**script.leaves[4].event.facts, "admitted_index": 1}),
    )
    assert findings(script.account()) == [("this end names entry 1, it began at 2", 4)]


def test_a_second_admission_is_found() -> None:
    """A request id stands for one request."""
    script = Script()
    script.add(Kind.APPLIANCE_STARTED)
    script.admit("a")
    index = script.admit("a")
    script.end("a", index)
    assert findings(script.account(engine(10, 4, 5))) == [("this request began twice", 2)]


def test_counters_that_go_back_are_found() -> None:
    """A death in between tells a lower bound."""
    script = Script()
    script.serve("a")
    script.add(Kind.ENGINE_DIED, "engine", engine=engine(11, 4, 5))
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(10, 4, 5))
    assert findings(script.account()) == [("the engine's prompt_tokens went back from 11 to 10", 4)]


def test_a_running_appliance_is_open_and_may_be_ahead_of_its_log() -> None:
    """Tokens of running requests are counted and not recorded yet; more in the log than counted is wrong even now."""
    script = Script()
    script.serve("a")
    script.admit("b")
    found = script.account(engine(20, 4, 8))
    assert (found.verdict, findings(found)) == (Verdict.OPEN, [])
    assert found.runs[0].open_requests == (("b", 3),)
    assert script.account(engine(20, 4, 4)).verdict is Verdict.UNBALANCED
    script.end("b", 3)
    assert script.account(engine(20, 8, 10)).verdict is Verdict.BALANCED


def test_a_killed_run_is_accounted_for_by_the_next_one() -> None:
    """Its requests have their ends there; its tokens nobody counted, and that is said."""
    script = Script()
    script.serve("a")
    index = script.admit("b")
    script.add(Kind.ENGINE_DIED, "engine", engine=engine(20, 8, 7))
    script.epoch = 2
    script.add(Kind.APPLIANCE_STARTED)
    script.add(Kind.REQUEST_ABANDONED, "b", admitted_index=index, outcome="abandoned")
    script.admit("c")
    found = script.account(engine(0, 0, 0))
    killed, present = found.runs
    assert (killed.verdict, killed.counted, killed.num_open) == (Verdict.UNCOUNTED, None, 0)
    assert killed.ends == {"request:abandoned": 1, "request:completed": 1}
    assert (present.verdict, present.epoch, present.boot_id) == (Verdict.OPEN, 2, "boot-2")
    assert found.verdict is Verdict.UNCOUNTED
    only_present = reconcile(script.leaves[5:], (2, engine(0, 0, 0)))
    assert (only_present.verdict, findings(only_present)) == (Verdict.OPEN, [])


def test_a_killed_run_whose_requests_nobody_ended_is_found() -> None:
    """The next start owes them their end."""
    script = Script()
    script.serve()
    script.admit("b")
    script.epoch = 2
    script.add(Kind.APPLIANCE_STARTED)
    assert findings(script.account()) == [("this request began and has no end", 1)]


@pytest.mark.parametrize(
    "value", [None, {}, "x", {"prompt_tokens": True, "cached_tokens": 0, "output_tokens": 0, "late": ZERO}, {**ZERO}]
)
def test_counters_that_are_none_make_no_verdict_over_tokens(value: object) -> None:
    """Records of an older release hold none; what is malformed is not guessed at."""
    script = Script()
    script.serve("a")
    script.add(Kind.APPLIANCE_STOPPED, engine=value)
    assert script.account().verdict is Verdict.UNCOUNTED


def test_records_without_the_engines_tokens_make_no_verdict_over_tokens() -> None:
    """An older release wrote them."""
    script = Script()
    script.add(Kind.APPLIANCE_STARTED)
    script.add(Kind.REQUEST_COMPLETED, "a", admitted_index=script.admit("a"))
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(10, 4, 5))
    assert script.account().verdict is Verdict.UNCOUNTED


def test_a_replays_tokens_belong_to_the_account() -> None:
    """The engine counts them too; a replay that runs leaves the account open, one that was lost is found."""
    script = Script()
    script.serve("a")
    started = script.add(Kind.REPLAY_STARTED, "again").index
    assert script.account(engine(20, 4, 7)).verdict is Verdict.OPEN
    usage = dict(zip(TOKENS, (10, 0, 5), strict=True))
    script.add(Kind.REPLAY_ENDED, "again", started_index=started, engine=usage, outcome="completed")
    found = script.account(engine(20, 4, 10))
    assert (found.verdict, findings(found)) == (Verdict.BALANCED, [])
    assert (found.runs[0].num_admitted, found.runs[0].num_replays) == (1, 1)
    lost = [*script.leaves[:-1], script.add(Kind.APPLIANCE_STOPPED, engine=engine(20, 4, 10))]
    assert findings(reconcile(lost))[0] == ("this request began and has no end", started)


def test_of_a_part_of_a_run_no_sum_is_compared() -> None:
    """A window that begins in the middle: its requests are accounted for, its tokens cannot be."""
    script = Script()
    script.serve("a", "b")
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(20, 8, 10))
    whole, part = reconcile(script.leaves), reconcile(script.leaves[2:])
    assert (whole.verdict, part.verdict, findings(part)) == (Verdict.BALANCED, Verdict.UNCOUNTED, [])
    assert part.runs[0].num_admitted == 1


def test_nothing_balances() -> None:
    """An empty log has nothing that contradicts."""
    assert reconcile([]).verdict is Verdict.BALANCED


@given(st.data())
def test_every_single_lost_or_doubled_record_of_a_run_is_found(data: st.DataObject) -> None:
    """Take away or repeat any admission or end of any balanced run: never balanced again."""
    script = Script()
    names = [f"r{number}" for number in range(data.draw(st.integers(1, 6)))]
    script.add(Kind.APPLIANCE_STARTED)
    sums = [0, 0, 0]
    indexes = {name: script.admit(name) for name in names}
    for name in data.draw(st.permutations(names)):
        usage = data.draw(st.tuples(*[st.integers(1, 50)] * 3))
        kind = data.draw(st.sampled_from(sorted(PAIRING.terminals - {Kind.REQUEST_ABANDONED.value})))
        script.end(name, indexes[name], usage, kind)
        sums = [a + b for a, b in zip(sums, usage, strict=True)]
    script.add(Kind.APPLIANCE_STOPPED, engine=engine(*sums))
    assert script.account().verdict is Verdict.BALANCED
    records = range(1, len(script.leaves) - 1)
    at = data.draw(st.sampled_from(records))
    lost: Sequence[Leaf] = script.leaves[:at] + script.leaves[at + 1 :]
    twice: Sequence[Leaf] = script.leaves[: at + 1] + script.leaves[at:]
    assert reconcile(lost).verdict is Verdict.UNBALANCED
    assert reconcile(twice).verdict is Verdict.UNBALANCED
