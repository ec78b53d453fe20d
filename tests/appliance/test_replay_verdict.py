"""Where two answers part, told from marks, texts and ends alone."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st

from appliance.committed import MAX_MARKS, mark_every, token_spans
from appliance.replay.verdict import Difference, first_difference, first_unequal
from audit.subject_keys.commitment import MARK_BYTES, content_marks

KEY = bytes(range(32))
TOKENS = st.lists(st.integers(0, 3), max_size=80)


@given(st.text(max_size=8), st.text(max_size=8))
def test_the_first_unequal_place_is_the_first(left: str, right: str):
    """Everything before it is equal, it is not; equal sequences have none."""
    place = first_unequal(left, right)
    if place is None:
        assert left == right
    else:
        assert left[:place] == right[:place]
        assert left[place : place + 1] != right[place : place + 1]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=16))
def test_an_answer_has_few_marks_however_long_it_is(num_tokens: list[int]):
    """At most so many in all, one short span per choice apart."""
    every = mark_every(num_tokens)
    assert sum(-(-number // every) for number in num_tokens) <= MAX_MARKS + len(num_tokens)
    assert every == 1 or sum(-(-number // (every // 2)) for number in num_tokens) > MAX_MARKS + len(num_tokens)


@given(TOKENS, TOKENS)
def test_marks_name_the_span_of_the_first_difference(then: list[int], now: list[int]):
    """The first mark that differs covers the first token that differs, in length too."""
    every = mark_every([len(then)])
    marks = [_marks(tokens, every) for tokens in (then, now)]
    found = first_difference(marks=((marks[0],), (marks[1],)), every=every, texts=None, finishes=(["stop"], ["stop"]))
    place = first_unequal([str(token) for token in then], [str(token) for token in now])
    if place is None:
        assert found == Difference()
    else:
        assert found.tokens is not None
        assert found.tokens[0] <= place <= found.tokens[1] == found.tokens[0] + every - 1


def test_the_first_choice_that_differs_is_told():
    """Choices are looked at in order; an end that differs counts where text and tokens agree."""
    difference = first_difference(
        marks=None, every=1, texts=(["a", "bx"], ["a", "by"]), finishes=(["stop", "stop"], ["stop", "length"])
    )
    assert difference == Difference(choice=1, character=1)
    difference = first_difference(
        marks=None, every=1, texts=(["a", "b"], ["a", "b"]), finishes=(["stop", "stop"], ["stop", "length"])
    )
    assert difference == Difference(choice=1, finish=True)


def test_marks_say_nothing_without_the_key():
    """Other keys, requests and choices have unrelated marks for the same tokens."""
    spans = token_spans(list(range(64)), 1)
    marks = {
        content_marks(key, request_id, phase, spans)
        for key in (KEY, bytes(32))
        for request_id in ("r1", "r2")
        for phase in ("tokens/0", "tokens/1")
    }
    assert len(marks) == 8
    assert {len(one) for one in marks} == {64 * MARK_BYTES}


def _marks(token_ids: list[int], every: int) -> str:
    return urlsafe_b64encode(content_marks(KEY, "r1", "tokens/0", token_spans(token_ids, every))).decode()
