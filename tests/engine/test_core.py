"""The core at its border: refusals, cancellation, ends, errors of one row, first events and gauges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from contract_runner import VOCAB_SIZE, ContractCore, build_contract_core, expected_answer
from core_scenarios import Transcript, core_config, generation_request, run_to_end

from engine.errors import RequestRefused

MAX_MODEL_LEN = 48


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token_ids": ()}, "empty_prompt"),
        ({"token_ids": [1] * MAX_MODEL_LEN}, "prompt_too_long"),
        ({"token_ids": [VOCAB_SIZE]}, "token_out_of_vocabulary"),
        ({"token_ids": [-1]}, "token_out_of_vocabulary"),
        ({"stop_token_ids": (VOCAB_SIZE,)}, "token_out_of_vocabulary"),
        ({"eos_token_ids": (-1,)}, "token_out_of_vocabulary"),
        ({"logit_bias": ((VOCAB_SIZE, 1.0),)}, "token_out_of_vocabulary"),
        ({"max_tokens": 0}, "invalid_parameter"),
        ({"max_tokens": -1}, "invalid_parameter"),
        ({"min_tokens": -1}, "invalid_parameter"),
        ({"min_tokens": 5, "max_tokens": 4}, "invalid_parameter"),
        ({"temperature": math.nan}, "invalid_parameter"),
        ({"temperature": math.inf}, "invalid_parameter"),
        ({"temperature": -0.1}, "invalid_parameter"),
        ({"top_k": -1}, "invalid_parameter"),
        ({"top_p": 0.0}, "invalid_parameter"),
        ({"top_p": math.nan}, "invalid_parameter"),
        ({"min_p": 1.1}, "invalid_parameter"),
        ({"presence_penalty": math.nan}, "invalid_parameter"),
        ({"frequency_penalty": math.inf}, "invalid_parameter"),
        ({"repetition_penalty": 0.0}, "invalid_parameter"),
        ({"logit_bias": ((1, math.nan),)}, "invalid_parameter"),
        ({"seed": -1}, "invalid_parameter"),
        ({"seed": 2**64}, "invalid_parameter"),
        ({"num_logprobs": -1}, "invalid_parameter"),
        ({"num_logprobs": VOCAB_SIZE + 1}, "invalid_parameter"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_and_forgotten(contract_core: ContractCore, changes, code):
    """Each refusal has its code, quotes no prompt, and leaves nothing behind."""
    with pytest.raises(RequestRefused) as refused:
        contract_core.add(generation_request("bad", **changes))
    assert refused.value.code == code
    assert refused.value.hint
    assert not contract_core.has_work()
    contract_core.add(generation_request("bad"))
    run_to_end(contract_core)


def test_a_name_that_is_in_use_is_refused_and_its_owner_goes_on(contract_core: ContractCore):
    """The second request of a name cannot take the first one's place; when that has ended, the name is free."""
    request = generation_request("a")
    contract_core.add(request)
    with pytest.raises(RequestRefused) as refused:
        contract_core.add(generation_request("a", [9, 9]))
    assert refused.value.code == "duplicate_request_id"
    transcript = run_to_end(contract_core)
    assert transcript.token_ids("a") == expected_answer(request, MAX_MODEL_LEN).token_ids
    contract_core.add(request)
    assert run_to_end(contract_core).token_ids("a") == transcript.token_ids("a")


def test_a_cancelled_request_gives_its_pages_back_at_the_next_commit(contract_core: ContractCore):
    """One step later its pages are free or only cached, it has heard `cancelled`, and nothing of it was computed."""
    contract_core.add(generation_request("goes", range(9), max_tokens=20))
    contract_core.add(generation_request("stays", [5], max_tokens=20))
    contract_core.step()
    contract_core.step()
    contract_core.cancel("goes")
    assert contract_core.stats().num_running == 2
    transcript = Transcript()
    transcript.take(contract_core.step())
    contract_core.check_integrity()
    stats = contract_core.stats()
    assert transcript.finish("goes") == "cancelled"
    assert (stats.num_running, stats.num_pages - stats.num_free_pages - stats.num_cached_pages) == (1, 1)
    assert [chunk.request_id for chunk in contract_core.runner.batches[-1].chunks] == ["stays"]


def test_a_waiting_request_is_cancelled_without_being_computed(contract_core: ContractCore):
    """Its one event says neither a queue time nor cached tokens: it never entered a step."""
    contract_core.add(generation_request("a"))
    contract_core.cancel("a")
    assert contract_core.has_work()
    (event,) = contract_core.step()
    assert (event.finish, event.token_ids, event.queue_time_s, event.num_cached_tokens) == ("cancelled", (), None, None)
    assert contract_core.runner.batches == []
    assert not contract_core.has_work()


def test_a_preempted_request_can_be_cancelled():
    """It holds no pages, and it is not forgotten."""
    core = build_contract_core(core_config(max_num_sequences=1))
    core.add(generation_request("low", max_tokens=9))
    core.step()
    core.add(generation_request("high", priority=1, max_tokens=9))
    core.step()
    core.cancel("low")
    transcript = run_to_end(core)
    assert transcript.finish("low") == "cancelled"
    assert transcript.events["low"][-1].num_preemptions == 1


def test_cancelling_an_unknown_or_ended_request_does_nothing(contract_core: ContractCore):
    """A cancellation may cross with the end."""
    contract_core.add(generation_request("a", max_tokens=1))
    run_to_end(contract_core)
    contract_core.cancel("a")
    contract_core.cancel("never heard of")
    assert not contract_core.has_work()


def test_two_cancellations_are_one(contract_core: ContractCore):
    """One event, one release."""
    contract_core.add(generation_request("a"))
    contract_core.step()
    contract_core.cancel("a")
    contract_core.cancel("a")
    assert [event.finish for event in contract_core.step()] == ["cancelled"]
    contract_core.check_integrity()


def first_tokens(**changes) -> tuple[int, ...]:
    """What the model would say if nothing ended it."""
    return expected_answer(generation_request("a", max_tokens=8, ignore_eos=True, **changes), MAX_MODEL_LEN).token_ids


@pytest.mark.parametrize("kind", ["stop_token_ids", "eos_token_ids"])
def test_an_end_token_ends_the_answer_and_is_part_of_it(contract_core: ContractCore, kind):
    """The event names the token; nothing comes after it."""
    end = first_tokens()[2]
    contract_core.add(generation_request("a", max_tokens=8, **{kind: (end,)}))
    transcript = run_to_end(contract_core)
    last = transcript.events["a"][-1]
    assert (last.finish, last.stop_token_id, last.token_ids) == ("stop", end, (end,))
    assert end not in transcript.token_ids("a")[:-1]


def test_ignore_eos_ignores_the_models_ends_and_only_these(contract_core: ContractCore):
    """A stop token that the request named still counts."""
    eos, stop = first_tokens()[1], first_tokens()[3]
    assert eos != stop
    contract_core.add(
        generation_request("a", max_tokens=8, eos_token_ids=(eos,), stop_token_ids=(stop,), ignore_eos=True)
    )
    transcript = run_to_end(contract_core)
    assert transcript.events["a"][-1].stop_token_id == stop
    assert eos in transcript.token_ids("a")


def test_an_end_token_before_min_tokens_does_not_end_the_answer(contract_core: ContractCore, monkeypatch):
    """Even when a sampler lets one through: a token counts as an end only after `min_tokens` others."""
    sampler = contract_core._sampler
    masked_sample = sampler.sample

    def unmasked_sample(logits, rows):
        return masked_sample(logits, [replace(row, params=replace(row.params, min_tokens=0)) for row in rows])

    monkeypatch.setattr(sampler, "sample", unmasked_sample)
    everything = tuple(range(VOCAB_SIZE))
    contract_core.add(generation_request("a", max_tokens=8, min_tokens=5, stop_token_ids=everything))
    transcript = run_to_end(contract_core)
    assert (len(transcript.token_ids("a")), transcript.finish("a")) == (6, "stop")


def test_an_answer_ends_at_max_tokens(contract_core: ContractCore):
    """Neither before nor after."""
    contract_core.add(generation_request("a", max_tokens=3))
    transcript = run_to_end(contract_core)
    assert (len(transcript.token_ids("a")), transcript.finish("a")) == (3, "length")


def test_an_answer_ends_at_max_model_len(contract_core: ContractCore):
    """Prompt and output together."""
    contract_core.add(generation_request("a", [1] * (MAX_MODEL_LEN - 2), max_tokens=30))
    transcript = run_to_end(contract_core)
    assert (len(transcript.token_ids("a")), transcript.finish("a")) == (2, "length")


def test_a_row_that_fails_ends_its_own_request_and_poisons_nothing(contract_core: ContractCore):
    """Neighbours answer as if alone, and the failed request's pages are not found by the next one with its prompt."""
    bad = generation_request("bad", range(9), max_tokens=6)
    good = generation_request("good", [4, 4], max_tokens=6)
    contract_core.add(bad)
    contract_core.add(good)
    transcript = Transcript()
    transcript.take(contract_core.step())
    contract_core.runner.nan_request_ids.add("bad")
    run_to_end(contract_core, transcript)
    assert (transcript.finish("bad"), transcript.error("bad")) == ("error", "nan_logits")
    assert len(transcript.token_ids("bad")) == 1
    assert transcript.token_ids("good") == expected_answer(good, MAX_MODEL_LEN).token_ids
    contract_core.runner.nan_request_ids.clear()
    contract_core.add(bad)
    (event,) = contract_core.step()
    assert event.num_cached_tokens == 0


def test_a_prompt_that_no_memory_holds_ends_with_its_own_code():
    """At the next step, whoever runs or waits; nobody else notices."""
    core = build_contract_core(core_config(num_pages=4, max_num_sequences=1))
    neighbour = generation_request("neighbour", [1, 2], max_tokens=6)
    core.add(neighbour)
    core.step()
    core.add(generation_request("huge", range(20)))
    events = {event.request_id: event for event in core.step()}
    assert (events["huge"].finish, events["huge"].error) == ("error", "out_of_kv_memory")
    assert events["neighbour"].num_preemptions == 0
    run_to_end(core)


def test_an_answer_that_outgrows_the_memory_ends_with_its_own_code_after_the_last_token_that_fits():
    """Sixteen slots: the seventeenth token needs none, an eighteenth would."""
    core = build_contract_core(core_config(num_pages=4))
    core.add(generation_request("grows", range(10), max_tokens=30))
    transcript = run_to_end(core)
    assert (transcript.finish("grows"), transcript.error("grows")) == ("error", "out_of_kv_memory")
    assert len(transcript.token_ids("grows")) == 7


def test_the_first_event_says_how_long_it_waited_and_what_was_cached():
    """And only the first one; time is the caller's clock, looked at before and after each step's computation."""
    now = iter(range(100))
    core = build_contract_core(core_config(max_num_sequences=1), now=lambda: float(next(now)))
    core.add(generation_request("a", range(9), max_tokens=2))  # added at 0, scheduled at 2
    core.add(generation_request("b", range(9), max_tokens=2))  # added at 1, scheduled at 6
    transcript = run_to_end(core)
    assert [(e.queue_time_s, e.num_cached_tokens) for e in transcript.events["a"]] == [(2.0, 0), (None, None)]
    assert [(e.queue_time_s, e.num_cached_tokens) for e in transcript.events["b"]] == [(5.0, 8), (None, None)]


def test_the_event_of_the_first_token_says_how_long_the_prompt_took():
    """From first scheduling to the first token, through all chunks of the prompt; no other event says it."""
    now = iter(range(100))
    core = build_contract_core(core_config(max_num_batched_tokens=4), now=lambda: float(next(now)))
    core.add(generation_request("a", range(10), max_tokens=2))
    transcript = run_to_end(core)
    assert len(transcript.steps) == 4
    assert [event.prefill_time_s for event in transcript.events["a"]] == [5.0, None]  # scheduled at 1, chosen at 6


def test_a_request_that_ends_before_its_first_token_has_no_prefill_time(contract_core: ContractCore):
    """Cancelled between two chunks of its prompt."""
    contract_core.add(generation_request("a", [1] * 40))
    contract_core.step()
    contract_core.cancel("a")
    (event,) = run_to_end(contract_core).events["a"]
    assert (event.finish, event.prefill_time_s, event.num_cached_tokens) == ("cancelled", None, 0)


def test_logprobs_come_with_their_tokens_and_only_when_asked_for(contract_core: ContractCore):
    """One for each token."""
    contract_core.add(generation_request("asks", num_logprobs=0))
    contract_core.add(generation_request("does not"))
    transcript = run_to_end(contract_core)
    for event in transcript.events["asks"]:
        assert tuple(logprobs.token_id for logprobs in event.logprobs) == event.token_ids
    assert all(event.logprobs == () for event in transcript.events["does not"])


def test_a_follow_up_finds_prompt_and_answer_in_the_cache(contract_core: ContractCore):
    """The next turn of a conversation computes only what is new."""
    first = generation_request("first", range(10), max_tokens=7)
    contract_core.add(first)
    answer = run_to_end(contract_core).token_ids("first")
    contract_core.add(generation_request("second", (*first.token_ids, *answer, 5, 6)))
    assert run_to_end(contract_core).events["second"][0].num_cached_tokens == 16


def test_without_the_prefix_cache_nothing_is_kept():
    """Every page is free when all has ended, and every prompt is computed."""
    core = build_contract_core(core_config(enable_prefix_cache=False))
    for name in "ab":
        core.add(generation_request(name, range(9)))
    run_to_end(core)
    stats = core.stats()
    assert (stats.num_free_pages, stats.num_cached_pages, stats.prompt_tokens) == (stats.num_pages, 0, 18)
    assert (stats.prefix_cache_query_tokens, stats.prefix_cache_hit_tokens) == (0, 0)


def test_gauges_and_counters_say_what_happened(contract_core: ContractCore):
    """Two requests with one prompt of nine tokens, one after the other."""
    contract_core.add(generation_request("a", range(9), max_tokens=3, ignore_eos=True))
    contract_core.step()
    stats = contract_core.stats()
    assert (stats.num_running, stats.num_waiting, stats.last_iteration_tokens, stats.num_steps) == (1, 0, 9, 1)
    assert (stats.kv_usage_perc, stats.kv_waste_perc) == (3 / 16, 3 / 12)
    assert (stats.num_free_pages, stats.num_cached_pages) == (13, 0)
    run_to_end(contract_core)
    contract_core.add(generation_request("b", range(9), max_tokens=3, ignore_eos=True))
    run_to_end(contract_core)
    stats = contract_core.stats()
    assert (stats.prefix_cache_query_tokens, stats.prefix_cache_hit_tokens) == (18, 8)
    assert (stats.prompt_tokens, stats.generation_tokens, stats.recomputed_tokens) == (10, 6, 0)
    assert (stats.num_steps, stats.last_iteration_tokens, stats.num_preemptions) == (6, 1, 0)


@pytest.mark.parametrize("fault", ["forward", "sample"])
def test_a_step_that_fails_before_its_commit_changes_no_book(contract_core: ContractCore, fault, monkeypatch):
    """The exception goes up, for the process to end by; nothing was half applied."""
    contract_core.add(generation_request("a"))
    contract_core.step()
    contract_core.cancel("a")
    contract_core.add(generation_request("b"))
    before = contract_core.stats()
    owner = contract_core._runner if fault == "forward" else contract_core._sampler

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(owner, fault, fail)
    with pytest.raises(MemoryError):
        contract_core.step()
    assert contract_core.stats() == before
    contract_core.check_integrity()


def test_a_sampler_that_answers_too_few_rows_stops_the_engine(contract_core: ContractCore, monkeypatch):
    """Rows and tokens are matched by place: a missing one would shift every answer after it."""
    contract_core.add(generation_request("a"))
    monkeypatch.setattr(contract_core._sampler, "sample", lambda *_: ())
    with pytest.raises(AssertionError, match="0 tokens are chosen for 1 rows"):
        contract_core.step()
