"""The engine's laws over drawn loads.  The contract runner checks every read and write of every step meanwhile."""

from __future__ import annotations

from dataclasses import replace

from contract_runner import build_contract_core
from core_scenarios import Scenario, configs, core_config, generation_request, run_to_end, scenarios
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.fairness import INPUT_COST, OUTPUT_COST

LAW = settings(deadline=None, max_examples=150)


@LAW
@given(scenarios())
def test_an_answer_depends_on_its_request_alone(scenario: Scenario):
    """Neighbours, order, chunks, pages, cache hits, preemptions and others' cancellations change no token."""
    _, transcript = scenario.run()
    for arrival in scenario.arrivals:
        token_ids, finish = scenario.expected(arrival)
        seen = transcript.token_ids(arrival.request.request_id)
        if arrival.cancelled_at_step is None:
            assert (seen, transcript.finish(arrival.request.request_id)) == (token_ids, finish)
        else:
            assert seen == token_ids[: len(seen)]
            assert transcript.finish(arrival.request.request_id) in (finish, "cancelled")


@LAW
@given(scenarios(with_cancels=False), configs())
def test_an_answer_is_the_same_on_every_machine(scenario: Scenario, other: object):
    """Two machines of different memory and budgets give equal tokens as far as both have room."""
    other = replace(other, max_model_len=scenario.config.max_model_len)
    _, here = scenario.run()
    _, there = replace(scenario, config=other).run()
    for arrival in scenario.arrivals:
        request_id = arrival.request.request_id
        shorter, longer = sorted((here.token_ids(request_id), there.token_ids(request_id)), key=len)
        assert longer[: len(shorter)] == shorter
        if "error" not in (here.finish(request_id), there.finish(request_id)):
            assert here.finish(request_id) == there.finish(request_id)
            assert len(shorter) == len(longer)


@LAW
@given(scenarios())
def test_pages_are_conserved(scenario: Scenario):
    """When everything has ended, each page is free or in the prefix tree, and no request is remembered."""
    core, transcript = scenario.run()
    stats = core.stats()
    assert stats.num_free_pages + stats.num_cached_pages == stats.num_pages
    assert (stats.num_running, stats.num_waiting, stats.kv_usage_perc, stats.kv_waste_perc) == (0, 0, 0.0, 0.0)
    assert set(transcript.events) == {arrival.request.request_id for arrival in scenario.arrivals}


@LAW
@given(scenarios())
def test_decode_never_starves(scenario: Scenario):
    """From its first token on, a request gets one token in every step, unless it is preempted or ends."""
    _, transcript = scenario.run()
    for request_id in transcript.events:
        heard_at = transcript.heard_at(request_id)
        events = transcript.events[request_id]
        for (step, event), (next_step, next_event) in zip(
            zip(heard_at, events, strict=True), zip(heard_at[1:], events[1:], strict=True), strict=False
        ):
            assert next_step == step + 1 or next_event.num_preemptions > event.num_preemptions or next_event.finish


@LAW
@given(scenarios(num_priorities=3))
def test_a_lower_class_is_invisible_to_a_higher_one(scenario: Scenario):
    """With tokens to spare, the highest class is answered in the very steps in which it would be alone."""
    arrivals = tuple(
        replace(arrival, request=replace(arrival.request, cache_salt=arrival.request.request_id.encode()))
        for arrival in scenario.arrivals
    )
    highest = max(arrival.request.priority for arrival in arrivals)
    config = replace(scenario.config, max_num_batched_tokens=400)
    among_all = Scenario(config, arrivals).run()[1]
    alone = Scenario(config, tuple(a for a in arrivals if a.request.priority == highest)).run()[1]
    for request_id in alone.events:
        assert among_all.heard_at(request_id) == alone.heard_at(request_id)


@LAW
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=8, max_size=8),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 6)), min_size=8, max_size=8),
    st.integers(2, 12),
)
def test_backlogged_clients_are_served_alike(max_running, sizes_x, sizes_y, budget):
    """While two clients both wait, their served weighted tokens differ by no more than the paper's bound."""
    config = core_config(
        num_pages=200, max_num_sequences=max_running, max_num_batched_tokens=max(budget, max_running), page_size=4
    )
    core = build_contract_core(config)
    requests = {}
    for client, sizes in (("x", sizes_x), ("y", sizes_y)):
        for index, (num_prompt, max_tokens) in enumerate(sizes):
            request = generation_request(
                f"{client}{index}",
                [(index + position) % 30 for position in range(num_prompt)],
                max_tokens=max_tokens,
                fairness_key=client,
                cache_salt=f"{client}{index}".encode(),
            )
            requests[request.request_id] = request
            core.add(request)
    served = {"x": 0, "y": 0}
    started: set[str] = set()
    bound = INPUT_COST * 9 + OUTPUT_COST * 6 * max_running
    while core.has_work():
        events = core.step()
        for chunk in core.runner.batches[-1].chunks:
            if chunk.request_id not in started:
                started.add(chunk.request_id)
                served[chunk.request_id[0]] += INPUT_COST * len(requests[chunk.request_id].token_ids)
        for event in events:
            served[event.request_id[0]] += OUTPUT_COST * len(event.token_ids)
        waits = {client: any(r[0] == client and r not in started for r in requests) for client in served}
        if all(waits.values()):
            assert abs(served["x"] - served["y"]) <= bound, f"served {served}, bound {bound}"


@LAW
@given(scenarios(with_cancels=False))
def test_another_salt_never_hits(scenario: Scenario):
    """Requests with a salt of their own find nothing, however alike their prompts are."""
    arrivals = tuple(
        replace(arrival, request=replace(arrival.request, cache_salt=arrival.request.request_id.encode()))
        for arrival in scenario.arrivals
    )
    core, _ = replace(scenario, arrivals=arrivals).run()
    assert core.stats().prefix_cache_hit_tokens == 0


@LAW
@given(scenarios())
def test_planning_changes_nothing(scenario: Scenario):
    """A plan made twice is the same plan, and the books between are untouched."""
    core = build_contract_core(scenario.config)
    for arrival in scenario.arrivals:
        core.add(arrival.request)
    for arrival in scenario.arrivals:
        if arrival.cancelled_at_step is not None and arrival.cancelled_at_step > 12:
            core.cancel(arrival.request.request_id)
    while core.has_work():
        before = core.stats()
        first = core._scheduler.plan()
        core.check_integrity()
        assert core.stats() == before
        assert core._scheduler.plan() == first
        core.step()
    run_to_end(core)
