"""What a step computes: budget, decode first, classes, fairness, displacement, memory pressure and shared prefixes."""

from __future__ import annotations

import pytest
from contract_runner import ContractCore, build_contract_core
from core_scenarios import Transcript, core_config, generation_request, run_to_end

from engine.batch import Batch
from engine.scheduler import Outcome, Scheduler


def sizes(batch: Batch) -> dict[str, int]:
    """How many tokens of each request a batch computes."""
    return {chunk.request_id: len(chunk.token_ids) for chunk in batch.chunks}


def computed(core: ContractCore) -> list[dict[str, int]]:
    """The same for all batches so far."""
    return [sizes(batch) for batch in core.runner.batches]


def test_decodes_are_served_before_prefills_fill_the_budget():
    """A long prompt takes what decodes leave, chunk by chunk, and no decode waits for it."""
    core = build_contract_core(core_config(max_num_batched_tokens=8))
    core.add(generation_request("a", [1, 2], max_tokens=5))
    core.add(generation_request("b", [3, 4], max_tokens=5))
    core.step()
    core.add(generation_request("long", range(20), max_tokens=1))
    run_to_end(core)
    assert computed(core) == [
        {"a": 2, "b": 2},
        {"a": 1, "b": 1, "long": 6},
        {"a": 1, "b": 1, "long": 6},
        {"a": 1, "b": 1, "long": 6},
        {"a": 1, "b": 1, "long": 2},
    ]


def test_a_younger_decode_is_not_starved_by_an_older_prefill():
    """Age gives pages and budget, but never another sequence's one token."""
    core = build_contract_core(core_config(max_num_batched_tokens=4))
    core.add(generation_request("old", range(12), max_tokens=1))
    core.add(generation_request("young", [7], max_tokens=4, priority=1))
    core.step()
    core.step()
    assert computed(core) == [{"young": 1, "old": 3}, {"young": 1, "old": 3}]
    core.add(generation_request("younger", [8], max_tokens=4))
    run_to_end(core)
    first_of_younger = next(n for n, step in enumerate(computed(core)) if "younger" in step)
    assert all("younger" in step for step in computed(core)[first_of_younger : first_of_younger + 4])


def test_there_run_never_more_sequences_than_tokens_in_a_step():
    """Otherwise some decode could not have its token; a higher class displaces somebody for place and token alike."""
    core = build_contract_core(core_config(max_num_batched_tokens=2, max_num_sequences=8))
    core.add(generation_request("low", [1], max_tokens=6))
    core.add(generation_request("lower", [2, 3], max_tokens=6))
    core.step()
    core.add(generation_request("high", [4], max_tokens=6, priority=1))
    while core.has_work():
        core.step()
        assert core.stats().num_running <= 2
    assert computed(core)[:2] == [{"low": 1, "lower": 1}, {"high": 1, "low": 1}]


def test_a_higher_class_goes_first_and_displaces_a_lower_one_when_places_run_out():
    """The displaced one is the lowest class's youngest; it comes back and loses no token."""
    core = build_contract_core(core_config(max_num_sequences=2))
    core.add(generation_request("old", [1], max_tokens=6))
    core.add(generation_request("young", [2], max_tokens=6))
    transcript = Transcript()
    transcript.take(core.step())
    core.add(generation_request("high", [3], max_tokens=2, priority=1))
    run_to_end(core, transcript)
    assert [set(step) for step in computed(core)[:4]] == [
        {"old", "young"},
        {"high", "old"},
        {"high", "old"},
        {"old", "young"},
    ]
    assert transcript.events["young"][-1].num_preemptions == 1
    assert transcript.events["old"][-1].num_preemptions == 0


def test_an_equal_class_is_never_displaced_for_a_start():
    """Who runs goes on; who comes waits."""
    core = build_contract_core(core_config(max_num_sequences=1))
    core.add(generation_request("first", [1], max_tokens=3))
    core.add(generation_request("second", [2], max_tokens=3))
    run_to_end(core)
    assert [set(step) for step in computed(core)] == [{"first"}] * 3 + [{"second"}] * 3


def test_under_pressure_the_youngest_of_the_lowest_class_gives_up_its_pages():
    """And keeps its tokens: they are computed again, found again where the tree still has them."""
    core = build_contract_core(core_config(num_pages=6, max_num_batched_tokens=32, enable_prefix_cache=False))
    for name, priority in (("low", 0), ("high-old", 1), ("high-young", 1)):
        core.add(generation_request(name, [1, 2, 3], max_tokens=8, priority=priority))
    transcript = run_to_end(core)
    preempted = {name: events[-1].num_preemptions for name, events in transcript.events.items()}
    assert preempted["low"] >= 1
    assert preempted["high-old"] == 0
    assert core.stats().num_preemptions == sum(preempted.values())
    assert core.stats().recomputed_tokens > 0


def test_nobody_starts_while_one_of_higher_rank_cannot():
    """A small request does not slip past a large one for ever: it waits behind it."""
    core = build_contract_core(core_config(num_pages=8, max_num_batched_tokens=64, enable_prefix_cache=False))
    core.add(generation_request("running", range(16), max_tokens=4))
    core.step()
    core.add(generation_request("large", range(20), max_tokens=1))
    core.add(generation_request("small", [1], max_tokens=1))
    run_to_end(core)
    assert [set(step) for step in computed(core)] == [{"running"}] * 4 + [{"large", "small"}]


def test_a_large_request_displaces_nobody_when_that_would_not_help():
    """A higher class that cannot fit beside its own peers leaves the lower class running."""
    core = build_contract_core(core_config(num_pages=8, max_num_batched_tokens=64, enable_prefix_cache=False))
    core.add(generation_request("peer", range(16), max_tokens=6, priority=1))
    core.add(generation_request("low", [1, 2], max_tokens=2))
    core.step()
    core.add(generation_request("large", range(28), max_tokens=1, priority=1))
    transcript = run_to_end(core)
    assert transcript.events["low"][-1].num_preemptions == 0
    assert set(computed(core)[1]) == {"peer", "low"}


def test_a_prompt_starts_only_when_all_of_it_fits():
    """A start that is paid for by the first chunk alone would be preempted, and computed again, in the middle."""
    core = build_contract_core(core_config(num_pages=8, max_num_batched_tokens=8, enable_prefix_cache=False))
    core.add(generation_request("first", range(20), max_tokens=1))
    core.add(generation_request("second", range(16), max_tokens=1))
    run_to_end(core)
    assert computed(core) == [{"first": 8}, {"first": 8}, {"first": 4}, {"second": 8}, {"second": 8}]
    assert core.stats().num_preemptions == 0


def test_a_start_leaves_a_page_to_each_that_runs():
    """A start that takes the last page is preempted by the next decode that begins one."""
    core = build_contract_core(core_config(num_pages=4, max_num_batched_tokens=64, enable_prefix_cache=False))
    core.add(generation_request("runs", [1, 2, 3, 4], max_tokens=3))
    core.step()
    core.add(generation_request("newcomer", range(8), max_tokens=1))
    run_to_end(core)
    assert [set(step) for step in computed(core)] == [{"runs"}, {"runs"}, {"runs"}, {"newcomer"}]


def test_nobody_of_its_class_starts_in_the_step_that_preempts_a_sequence():
    """The pages that it gave up are for those before it, not for a newcomer behind it."""
    core = build_contract_core(core_config(num_pages=7, max_num_batched_tokens=64, enable_prefix_cache=False))
    core.add(generation_request("old", range(8), max_tokens=6))
    core.add(generation_request("young", range(16), max_tokens=6))
    core.step()
    core.add(generation_request("newcomer", [1], max_tokens=1))
    core.add(generation_request("high", [2], max_tokens=1, priority=1))
    transcript = Transcript()
    transcript.take(core.step())
    assert set(computed(core)[-1]) == {"high", "old"}
    run_to_end(core, transcript)
    assert transcript.events["young"][-1].num_preemptions == 1


def test_the_pages_of_a_cancelled_request_serve_the_next_one_in_the_same_step():
    """Its end and the other's start are one commit."""
    core = build_contract_core(core_config(num_pages=4, max_num_batched_tokens=64))
    core.add(generation_request("goes", range(13), max_tokens=3))
    core.step()
    core.add(generation_request("comes", range(10, 23), max_tokens=3))
    core.cancel("goes")
    core.step()
    assert set(computed(core)[-1]) == {"comes"}
    core.check_integrity()


def test_starts_of_one_step_are_shared_out_among_clients():
    """Each start counts at once, not only when it is committed."""
    core = build_contract_core(core_config(max_num_sequences=2))
    core.add(generation_request("busy-0", [1], fairness_key="busy"))
    core.add(generation_request("busy-1", [1], fairness_key="busy"))
    core.add(generation_request("quiet", [2], fairness_key="quiet"))
    core.step()
    assert set(computed(core)[0]) == {"busy-0", "quiet"}


def test_requests_with_one_prompt_compute_it_once():
    """While the first one computes it, the others wait one step, and then find it."""
    core = build_contract_core(core_config(max_num_batched_tokens=64))
    prompt = range(17)
    for choice in range(4):
        core.add(generation_request(f"choice-{choice}", prompt, seed=choice, max_tokens=3))
    transcript = run_to_end(core)
    assert computed(core)[:2] == [{"choice-0": 17}, {f"choice-{n}": 1 for n in range(4)}]
    assert [transcript.events[f"choice-{n}"][0].num_cached_tokens for n in range(4)] == [0, 16, 16, 16]
    assert core.stats().prompt_tokens == 17 + 3


def test_requests_with_one_prompt_under_two_salts_do_not_wait_for_each_other():
    """What one tenant computes changes neither the work nor the steps of another."""
    core = build_contract_core(core_config(max_num_batched_tokens=64))
    core.add(generation_request("a", range(17), cache_salt=b"a"))
    core.add(generation_request("b", range(17), cache_salt=b"b"))
    core.step()
    assert computed(core) == [{"a": 17, "b": 17}]


def test_the_least_served_client_goes_first():
    """A client with one request is not behind another's heap of them."""
    core = build_contract_core(core_config(max_num_sequences=1))
    for index in range(4):
        core.add(generation_request(f"heap-{index}", [1], max_tokens=1, fairness_key="busy"))
    core.add(generation_request("single", [2], max_tokens=1, fairness_key="quiet"))
    run_to_end(core)
    assert [next(iter(step)) for step in computed(core)] == ["heap-0", "single", "heap-1", "heap-2", "heap-3"]


def test_idling_saves_nothing_up():
    """A client that comes late is level with the others, not ahead by all that they were served."""
    core = build_contract_core(core_config(max_num_sequences=1))
    for index in range(8):
        core.add(generation_request(f"busy-{index}", [1], max_tokens=1, fairness_key="busy"))
    for _ in range(4):
        core.step()
    for index in range(4):
        core.add(generation_request(f"late-{index}", [2], max_tokens=1, fairness_key="late"))
    run_to_end(core)
    order = [next(iter(step)).split("-")[0] for step in computed(core)[4:]]
    assert order[:6].count("late") == 3


def test_clients_are_remembered_no_longer_than_it_matters():
    """Ten thousand names that came and went leave no ten thousand counters."""
    core = build_contract_core(core_config())
    core.add(generation_request("stays", [1], max_tokens=40, ignore_eos=True))
    for index in range(1000):
        core.add(generation_request(f"n{index}", [2], max_tokens=1, fairness_key=f"client-{index}"))
        while core.stats().num_waiting:
            core.step()
        if not core._scheduler.is_live("stays"):
            core.add(generation_request("stays", [1], max_tokens=40, ignore_eos=True))
    service = core._scheduler._waiting._classes[0]
    assert len(service.counters) < 200
    run_to_end(core)
    assert core._scheduler._waiting._classes == {}


def test_a_plan_is_committed_once_and_only_while_it_is_the_latest():
    """A second commit of the same plan would give its pages away twice."""
    scheduler = Scheduler(core_config(), num_pages=8)
    scheduler.add(generation_request("a"), added_at=0.0)
    plan = scheduler.plan()
    scheduler.commit(plan, (Outcome(5),), scheduled_at=0.0)
    with pytest.raises(AssertionError, match="plan 0 is committed after 1 commits"):
        scheduler.commit(plan, (Outcome(5),), scheduled_at=0.0)


def test_a_lost_page_is_seen_by_the_integrity_check(contract_core: ContractCore):
    """The check is one that can fail."""
    contract_core.add(generation_request("a"))
    contract_core.step()
    contract_core.check_integrity()
    contract_core._scheduler._memory.pool.retain((contract_core._scheduler._running[0].page_ids[0],))
    with pytest.raises(AssertionError, match="counts 2 holders, 1 hold it"):
        contract_core.check_integrity()


def test_a_lost_sequence_is_seen_by_the_integrity_check(contract_core: ContractCore):
    """Live sequences are exactly those that run, wait or are about to end."""
    contract_core.add(generation_request("a"))
    contract_core._scheduler._waiting.take_out(contract_core._scheduler._live["a"])
    with pytest.raises(AssertionError, match=r"1 live != 0 run \+ 0 wait \+ 0 end"):
        contract_core.check_integrity()
