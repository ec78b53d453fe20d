import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.text.stops import StopMatcher

LAW = settings(deadline=None, max_examples=300)
letters = st.text("ab<", max_size=30)
stop_lists = st.lists(st.text("ab<", min_size=1, max_size=6), max_size=4).map(tuple)


def _naive(text, stops, *, include_stop):
    """Read character by character; the first stop string to be complete ends the text."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            stop = max(done, key=len)
            return text[: end if include_stop else end - len(stop)], stop
    return text, None


def _streamed(cuts, stops, *, include_stop):
    matcher = StopMatcher(stops, include_stop=include_stop)
    released = []
    for piece in cuts:
        match = matcher.push(piece)
        released.append(match.text)
        if match.stop is not None:
            return released, match.stop
    return [*released, matcher.flush()], None


@given(st.lists(letters, max_size=12), stop_lists, st.booleans())
@LAW
def test_streaming_equals_naive_search(pieces, stops, include_stop):
    """However the text is cut into deltas, it ends where a search over the whole would end it."""
    released, stop = _streamed(pieces, stops, include_stop=include_stop)
    assert ("".join(released), stop) == _naive("".join(pieces), stops, include_stop=include_stop)


@given(letters, stop_lists)
@LAW
def test_nothing_of_a_stop_string_leaves_early(text, stops):
    """At every moment what was released is a beginning of the final text: nothing has to be taken back."""
    final, _ = _naive(text, stops, include_stop=False)
    matcher = StopMatcher(stops)
    so_far = ""
    for character in text:
        match = matcher.push(character)
        so_far += match.text
        assert final.startswith(so_far)
        if match.stop is not None:
            break


@given(letters, stop_lists)
@LAW
def test_no_more_is_held_back_than_can_become_a_stop_string(text, stops):
    """What is held back begins some stop string: a stream is never slower than it must be."""
    matcher = StopMatcher(stops)
    so_far = ""
    for end, character in enumerate(text, start=1):
        match = matcher.push(character)
        so_far += match.text
        if match.stop is not None:
            return
        held = text[len(so_far) : end]
        assert held == "" or any(stop.startswith(held) for stop in stops)
        assert not any(
            stop.startswith(text[start:end]) for start in range(len(so_far)) for stop in stops if start < end
        )


def test_a_stop_string_over_three_tokens_is_found():
    """The cut lies where the stop string begins, two deltas back."""
    released, stop = _streamed(["so long<", "|e", "nd|> and more"], ("<|end|>",), include_stop=False)
    assert (released, stop) == (["so long", "", ""], "<|end|>")


def test_an_empty_stop_string_is_a_fault_of_the_caller():
    """The schema refuses it; should it get through, it must not end every text at once."""
    with pytest.raises(AssertionError):
        StopMatcher(("",))
