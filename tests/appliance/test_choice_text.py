"""A choice's text: whole, aligned with its tokens, without any part of a stop string."""

from __future__ import annotations

from fake_walk import served_model
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.choice_text import ChoiceText
from engine.request import StepEvent, TokenLogprobs

TOKENIZER = served_model().tokenizer
TEXT = st.text(alphabet=st.sampled_from("ab \nœ漢🙂"), max_size=30)
STOPS = st.lists(st.text(alphabet=st.sampled_from("ab œ漢"), min_size=1, max_size=3), max_size=3).map(tuple)


def _token_ids(text: str) -> list[int]:
    return [token_id for letter in text for token_id in TOKENIZER.encode(letter, add_special_tokens=False)]


def _deltas(choice: ChoiceText, token_ids: list[int], step: int) -> list:
    """Feed tokens, `step` at a time, until the choice ends."""
    deltas = []
    for first in range(0, len(token_ids), step):
        ids = tuple(token_ids[first : first + step])
        logprobs = tuple(TokenLogprobs(token_id, -0.5, 1) for token_id in ids)
        deltas.append(choice.take(StepEvent("r", token_ids=ids, logprobs=logprobs)))
        if choice.has_ended():
            return deltas
    deltas.append(choice.take(StepEvent("r", finish="length")))
    return deltas


def _first_stop(text: str, stops: tuple[str, ...]) -> str:
    """The text before the stop string that is complete first; of several, the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@settings(deadline=None, max_examples=300)
@given(text=TEXT, stops=STOPS, step=st.integers(1, 4))
def test_what_leaves_is_the_text_before_the_first_stop(text: str, stops: tuple[str, ...], step: int):
    """However tokens are grouped: the text that left is the text before the stop, and its tokens concatenate to it."""
    choice = ChoiceText(0, TOKENIZER, stops=stops, include_stop=False, logprobs=True)
    deltas = [delta for delta in _deltas(choice, _token_ids(text), step) if delta is not None]
    shown = "".join(delta.text for delta in deltas)
    assert shown == _first_stop(text, stops)
    assert choice.text == shown
    assert "".join(token.text for delta in deltas for token in delta.tokens) == shown
    assert choice.finish is not None
    assert choice.finish.reason == ("stop" if any(stop in text for stop in stops) else "length")


def test_a_token_that_ended_it_is_not_shown():
    """The end-of-sequence token is counted and never part of the text."""
    (eos, *_) = sorted(TOKENIZER.eos_token_ids)
    choice = ChoiceText(0, TOKENIZER, stops=(), include_stop=False, logprobs=False)
    ids = (*_token_ids("ab"), eos)
    delta = choice.take(StepEvent("r", token_ids=ids, finish="stop", stop_token_id=eos))
    assert delta is not None
    assert delta.text == "ab"
    assert choice.num_tokens == len(ids)
    assert choice.finish is not None
    assert choice.finish.stop_reason is None


def test_a_half_character_at_the_end_is_shown_as_broken_not_lost():
    """When the length cuts a character, the bytes that are there show as U+FFFD."""
    ids = _token_ids("🙂")
    assert len(ids) > 1, "the tokenizer of this test splits an emoji into bytes"
    choice = ChoiceText(0, TOKENIZER, stops=(), include_stop=False, logprobs=False)
    assert choice.take(StepEvent("r", token_ids=(ids[0],))) is None
    delta = choice.take(StepEvent("r", finish="length"))
    assert delta is not None
    assert delta.text == "\N{REPLACEMENT CHARACTER}"
