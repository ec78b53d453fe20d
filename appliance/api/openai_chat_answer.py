"""`chat.completion` and `chat.completion.chunk` bodies, as the released `openai` client reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.api.openai_usage import NOT_ENDED, JsonObject, ending, head, usage_body
from appliance.inference import Admission, Finished, TextDelta, TokenText


class ChatAnswer:
    """The bodies of one answer.

    A stream is: per choice one chunk with the role and empty content; chunks with content alone; per choice one chunk
    with the finish reason alone; with `include_usage` one chunk without choices that has the usage, which is null in
    all others.
    """

    def __init__(self, admission: Admission, *, num_choices: int, logprobs: bool, include_usage: bool) -> None:
        self._admission = admission
        self._num_choices = num_choices
        self._logprobs = logprobs
        self._include_usage = include_usage

    def opening(self) -> Iterable[JsonObject]:
        """Give each choice its role."""
        for index in range(self._num_choices):
            yield self._chunk([self._choice(index, {"role": "assistant", "content": ""}, NOT_ENDED)])

    def delta(self, delta: TextDelta) -> Iterable[JsonObject]:
        """Give new content."""
        choice = self._choice(delta.choice_index, {"content": delta.text}, NOT_ENDED)
        if self._logprobs:
            choice["logprobs"] = _logprobs(delta.tokens)
        yield self._chunk([choice])

    def closing(self, finished: Finished) -> Iterable[JsonObject]:
        """Give every finish reason, then the usage."""
        for finish in finished.choices:
            yield self._chunk([self._choice(finish.choice_index, {}, ending(finish))])
        if self._include_usage:
            yield {**self._chunk([]), "usage": usage_body(finished.usage)}

    def whole(self, deltas: Sequence[TextDelta], finished: Finished) -> JsonObject:
        """Give the one body."""
        choices = []
        for finish in finished.choices:
            own = [delta for delta in deltas if delta.choice_index == finish.choice_index]
            text = "".join(delta.text for delta in own)
            choice = {
                "index": finish.choice_index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": _logprobs([token for delta in own for token in delta.tokens]) if self._logprobs else None,
                **ending(finish),
            }
            choices.append(choice)
        body = head(self._admission, "chatcmpl", "chat.completion")
        return {**body, "choices": choices, "usage": usage_body(finished.usage)}

    def _chunk(self, choices: list[JsonObject]) -> JsonObject:
        chunk = {**head(self._admission, "chatcmpl", "chat.completion.chunk"), "choices": choices}
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _choice(self, index: int, delta: JsonObject, end: JsonObject) -> JsonObject:
        return {"index": index, "delta": delta, "logprobs": None, **end}


def _logprobs(tokens: Iterable[TokenText]) -> JsonObject:
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "bytes": list(token.raw),
                "top_logprobs": [
                    {"token": text, "logprob": logprob, "bytes": list(raw)} for text, raw, logprob in token.top
                ],
            }
            for token in tokens
        ],
        "refusal": None,
    }
