"""DESIGN 7, invariant 8: what goes wrong while policy decides denies, and stands in the log before anyone is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from policy_questions import INFERENCE, with_site, without_tables
from walk_bench import DEVELOPER, BenchMaker, WalkBench, completion

from appliance.errors import Forbidden, Unavailable
from appliance.gate import PolicyGate
from policies.bundle import load_bundle, read_source_bundle

QUESTIONS = {
    "a role that does not exist": ({"principal": replace(DEVELOPER, roles=("intern",))}, "intern"),
    "a clearance that does not exist": ({"principal": replace(DEVELOPER, clearance=9)}, "clearance"),
    "a label that does not exist": ({"label": 5}, "label"),
    "an address that is none": ({"source": "a host"}, "source"),
    "a tenant without a name": ({"principal": replace(DEVELOPER, tenant="")}, "tenant"),
}


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[BenchMaker]:
    """Make a walk that is closed after the test."""
    made: list[WalkBench] = []

    def make(**faults) -> WalkBench:
        made.append(WalkBench(tmp_path, **faults))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def _require_recorded(bench: WalkBench, refusal: Forbidden, errors_name: str) -> None:
    assert refusal.code == "policy_error"
    assert errors_name not in refusal.message
    assert refusal.receipt is not None
    facts = bench.reader.entry(refusal.receipt.index).leaf.event.facts
    assert (facts["decision"], facts["reason"]) == ("deny", "policy_error")
    assert errors_name in " ".join(facts["errors"])
    assert bench.kinds("r1") == ["request:denied"]
    assert bench.engine.streams == []
    assert bench.verify().ok


@pytest.mark.parametrize("name", sorted(QUESTIONS))
async def test_a_question_that_cannot_be_put_is_a_recorded_denial(make_bench: BenchMaker, name: str):
    """A fact that policy does not know denies: the caller hears a code, the auditor reads which fact it was."""
    changes, errors_name = QUESTIONS[name]
    bench = make_bench()
    with pytest.raises(Forbidden) as refusal:
        await bench.walk.admit(replace(bench.asking("r1"), **changes), completion())
    _require_recorded(bench, refusal.value, errors_name)


async def test_a_policy_that_fails_is_a_recorded_denial(make_bench: BenchMaker):
    """A site's forbid that asks for an entity nobody has errors inside Cedar, which would skip it and allow."""
    bench = make_bench()
    ghost = '@id("site.ghost") forbid (principal, action, resource) unless { Model::"ghost".approved };'
    policy = load_bundle(with_site(without_tables(read_source_bundle()), ghost))
    gate = PolicyGate(policy, bench.trail, bench.metrics, development_trust=True)
    context = {name: INFERENCE[name] for name in ("logprobs", "max_tokens", "n", "stream")}
    with pytest.raises(Forbidden) as refusal:
        await gate.authorize(bench.asking("r1"), "infer", bench.walk.model.target_at(0), context)
    _require_recorded(bench, refusal.value, "ghost")


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_an_error_that_cannot_be_recorded_is_no_denial(make_bench: BenchMaker, fault: str):
    """Persisted or not: nobody hears of a denial that is not known to be durable."""
    bench = make_bench(fail_at=0, fault=fault)
    with pytest.raises(Unavailable) as refusal:
        await bench.walk.admit(replace(bench.asking("r1"), label=5), completion())
    assert refusal.value.code == "log_unavailable"
    assert bench.kinds("r1") == ([] if fault == "not_persisted" else ["request:denied"])
    assert bench.engine.streams == []
