"""A choice's text: whole, aligned with its tokens, without any part of a stop string."""

from __future__ import annotations

import pytest
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


def _first_stop(text: str, stops: tuple[str, ...], min_tokens: int) -> str | None:
    """The text before the stop string that is complete first past `min_tokens`; of several, the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found and len(_token_ids(text[:end])) > min_tokens:
            return text[: end - max(map(len, found))]
    return None


@settings(deadline=None, max_examples=300)
@given(text=TEXT, stops=STOPS, min_tokens=st.integers(0, 12), step=st.integers(1, 4))
def test_what_leaves_is_the_text_before_the_first_stop(text: str, stops: tuple[str, ...], min_tokens: int, step: int):
    """However tokens are grouped: the text before the stop that counts left, and its tokens concatenate to it."""
    choice = ChoiceText(0, TOKENIZER, stops=stops, min_tokens=min_tokens, include_stop=False, logprobs=True)
    deltas = [delta for delta in _deltas(choice, _token_ids(text), step) if delta is not None]
    shown = "".join(delta.text for delta in deltas)
    cut = _first_stop(text, stops, min_tokens)
    assert shown == (text if cut is None else cut)
    assert choice.text == shown
    assert "".join(token.text for delta in deltas for token in delta.tokens) == shown
    assert choice.finish is not None
    assert choice.finish.reason == ("length" if cut is None else "stop")


@pytest.mark.parametrize(
    ("min_tokens", "shown", "stop"), [(0, "a", "b"), (2, "aba", "b"), (5, "ababa", "b"), (6, "ababab", None)]
)
def test_a_stop_string_within_min_tokens_is_text(min_tokens: int, shown: str, stop: str | None):
    """Up to `min_tokens` tokens a stop string ends nothing, as the end-of-sequence token does not either."""
    choice = ChoiceText(0, TOKENIZER, stops=("b",), min_tokens=min_tokens, include_stop=False, logprobs=False)
    _deltas(choice, _token_ids("ab" * 3), 1)
    assert choice.text == shown
    assert choice.finish is not None
    assert choice.finish.stop_reason == stop


def test_a_token_that_ended_it_is_not_shown():
    """The end-of-sequence token is counted and never part of the text."""
    (eos, *_) = sorted(TOKENIZER.eos_token_ids)
    choice = ChoiceText(0, TOKENIZER, stops=(), min_tokens=0, include_stop=False, logprobs=False)
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
    choice = ChoiceText(0, TOKENIZER, stops=(), min_tokens=0, include_stop=False, logprobs=False)
    assert choice.take(StepEvent("r", token_ids=(ids[0],))) is None
    delta = choice.take(StepEvent("r", finish="length"))
    assert delta is not None
    assert delta.text == "\N{REPLACEMENT CHARACTER}"
