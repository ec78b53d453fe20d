"""A large answer is put together beside the event loop, in pieces that each hold the interpreter for a moment."""

from __future__ import annotations

import json
import threading

import pytest
from fake_walk import ADMITTED, CREATED_S, finished
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.api.answering import LOGPROB_LEN, SMALL_BODY_LEN
from appliance.api.json_pieces import json_pieces
from appliance.api.openai_chat_answer import ChatAnswer
from appliance.api.openai_completions_answer import CompletionsAnswer
from appliance.inference import Admission, TextDelta, TokenText

TOP = tuple((f"t{number}", b"t", -float(number)) for number in range(20))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def _deltas(num_tokens: int) -> list[TextDelta]:
    return [TextDelta(0, "t", (TokenText("t", b"t", -0.5, TOP),)) for _ in range(num_tokens)]


@settings(deadline=None, max_examples=200)
@given(value=VALUES, depth=st.integers(0, 6))
def test_the_pieces_are_the_whole(value: object, depth: int):
    """However deep it is taken apart, the text is the one that a single call would make."""
    assert "".join(json_pieces(value, depth)) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("dialect", ["chat", "completions"])
def test_no_piece_is_larger_than_one_token(dialect: str):
    """The pieces of an answer do not grow with it: the longest holds one token's log-probabilities."""
    admission = Admission("r", ADMITTED, CREATED_S, "starter", "cls_x")
    longest = []
    for num_tokens in (2, 200):
        if dialect == "chat":
            shape = ChatAnswer(admission, num_choices=1, logprobs=True, include_usage=False)
        else:
            shape = CompletionsAnswer(admission, num_prompts=1, n=1, echo=False, logprobs=True, include_usage=False)
        body = shape.whole(_deltas(num_tokens), finished("length"))
        texts = [one for one in json_pieces(body) if one != json.dumps("t" * num_tokens)]
        longest.append(max(map(len, texts)))
    assert longest[0] == longest[1]


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "completions"])
async def test_a_large_answer_is_made_in_a_thread(http, walk, monkeypatch, dialect: str, is_large: bool):
    """Above the size of a small body it is built off the event loop; either way it is the same answer."""
    num_tokens = SMALL_BODY_LEN // (LOGPROB_LEN * 21) + 1 if is_large else 2
    shape = ChatAnswer if dialect == "chat" else CompletionsAnswer
    threads: list[int] = []
    whole = shape.whole

    def noting(self, deltas, end):
        threads.append(threading.get_ident())
        return whole(self, deltas, end)

    monkeypatch.setattr(shape, "whole", noting)
    walk.script = (*_deltas(num_tokens), finished("length"))
    if dialect == "chat":
        body = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 20}
        answer = await http.post("/v1/chat/completions", json={"model": "starter", **body})
        shown = [entry["token"] for entry in answer.json()["choices"][0]["logprobs"]["content"]]
    else:
        answer = await http.post("/v1/completions", json={"model": "starter", "prompt": "x", "logprobs": 20})
        shown = answer.json()["choices"][0]["logprobs"]["tokens"]
    assert answer.status_code == 200
    assert shown == ["t"] * num_tokens
    assert [one != threading.get_ident() for one in threads] == [is_large]
