from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.request import NO_USAGE, GenerationRequest, SamplingParams, SequenceUsage, StepEvent
from engine.request_book import RequestBook

PROMPT = (1, 2, 3, 4, 5)


def request(number: int) -> GenerationRequest:
    """Give a request of five prompt tokens."""
    return GenerationRequest(f"r{number}", PROMPT, SamplingParams(max_tokens=100))


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["step", "claim", "end"])), max_size=60))
async def test_what_consumers_claim_and_what_comes_late_is_what_the_engine_counted(acts) -> None:
    """Whenever each consumer takes account: every token is in exactly one of the two sums."""
    book = RequestBook(lambda: 0.0)
    handles = [book.open(request(number), lambda: None) for number in range(4)]
    begun: set[int] = set()
    for number, act in acts:
        if act == "claim":
            assert handles[number].claim() == handles[number].claim()
        elif book.is_live(f"r{number}"):
            first = {} if number in begun else {"num_cached_tokens": 3}
            begun.add(number)
            finish = "length" if act == "end" else None
            book.deliver(StepEvent(f"r{number}", token_ids=(7, 8), finish=finish, **first))
    claimed = NO_USAGE
    for handle in handles:
        claimed = claimed.plus(handle.claim())
    stats = book.tally.stats(restarts=0, num_live=0, loaded=None)
    counted = SequenceUsage(stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_output_tokens)
    assert claimed.plus(stats.late) == counted
    assert counted.num_prompt_tokens == len(PROMPT) * len(begun)


async def test_what_is_delivered_after_the_account_is_late() -> None:
    """A sequence that was given up still costs the engine a step: told apart, not lost."""
    book = RequestBook(lambda: 0.0)
    handle = book.open(request(0), lambda: None)
    book.deliver(StepEvent("r0", token_ids=(7,), num_cached_tokens=2))
    assert handle.claim() == SequenceUsage(5, 2, 1)
    book.deliver(StepEvent("r0", token_ids=(8,)))
    book.end("r0", "cancelled")
    assert handle.claim() == SequenceUsage(5, 2, 1)
    assert book.tally.late == SequenceUsage(0, 0, 1)
    assert book.tally.num_output_tokens == 2


def test_a_prompt_counts_with_the_first_event() -> None:
    """And with no other."""
    assert SequenceUsage.of_event(StepEvent("r", token_ids=(1,), num_cached_tokens=0), 9) == SequenceUsage(9, 0, 1)
    assert SequenceUsage.of_event(StepEvent("r", token_ids=(1, 2)), 9) == SequenceUsage(0, 0, 2)
