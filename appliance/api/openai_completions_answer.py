"""`text_completion` bodies and chunks, as the released `openai` client reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.api.openai_usage import NOT_ENDED, JsonObject, ending, head, usage_body
from appliance.inference import Admission, Finished, TextDelta, TokenText


class CompletionsAnswer:
    """The bodies of one answer; holds how many characters each choice has shown, for `text_offset`."""

    def __init__(
        self, admission: Admission, *, num_prompts: int, n: int, echo: bool, logprobs: bool, include_usage: bool
    ) -> None:
        self._admission = admission
        self._num_choices = num_prompts * n
        self._n = n
        self._echo = echo
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._shown_len = [len(self._echoed(index)) for index in range(self._num_choices)]
        """Characters of each choice so far."""

    def opening(self) -> Iterable[JsonObject]:
        """Give the prompts back, where that was asked for."""
        if self._echo:
            for index in range(self._num_choices):
                yield self._chunk([self._choice(index, self._echoed(index), None, NOT_ENDED)])

    def delta(self, delta: TextDelta) -> Iterable[JsonObject]:
        """Give new text."""
        logprobs = self._next_logprobs(delta) if self._logprobs else None
        yield self._chunk([self._choice(delta.choice_index, delta.text, logprobs, NOT_ENDED)])

    def closing(self, finished: Finished) -> Iterable[JsonObject]:
        """Give every finish reason, then the usage."""
        for finish in finished.choices:
            yield self._chunk([self._choice(finish.choice_index, "", None, ending(finish))])
        if self._include_usage:
            yield {**self._chunk([]), "usage": usage_body(finished.usage)}

    def whole(self, deltas: Sequence[TextDelta], finished: Finished) -> JsonObject:
        """Give the one body."""
        choices = []
        for finish in finished.choices:
            index = finish.choice_index
            own = [delta for delta in deltas if delta.choice_index == index]
            text = self._echoed(index) + "".join(delta.text for delta in own)
            logprobs = None
            if self._logprobs:
                tokens = tuple(token for delta in own for token in delta.tokens)
                logprobs = self._next_logprobs(TextDelta(index, "", tokens))
            choices.append(self._choice(index, text, logprobs, ending(finish)))
        return {**self._head(), "choices": choices, "usage": usage_body(finished.usage)}

    def _head(self) -> JsonObject:
        return head(self._admission, "cmpl", "text_completion")

    def _chunk(self, choices: list[JsonObject]) -> JsonObject:
        chunk = {**self._head(), "choices": choices}
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _choice(self, index: int, text: str, logprobs: JsonObject | None, end: JsonObject) -> JsonObject:
        return {"index": index, "text": text, "logprobs": logprobs, **end}

    def _echoed(self, index: int) -> str:
        return self._admission.prompt_texts[index // self._n] if self._echo else ""

    def _next_logprobs(self, delta: TextDelta) -> JsonObject:
        offsets: list[int] = []
        for token in delta.tokens:
            offsets.append(self._shown_len[delta.choice_index])
            self._shown_len[delta.choice_index] += len(token.text)
        return {
            "tokens": [token.text for token in delta.tokens],
            "token_logprobs": [token.logprob for token in delta.tokens],
            "top_logprobs": [_top(token) for token in delta.tokens],
            "text_offset": offsets,
        }


def _top(token: TokenText) -> dict[str, float]:
    # The chosen token is always among them, as in OpenAI's own answers.
    named = {_key(raw): logprob for _, raw, logprob in reversed(token.top)}
    return dict(sorted({_key(token.raw): token.logprob, **named}.items(), key=lambda entry: -entry[1]))


def _key(raw: bytes) -> str:
    """Name a token so that two tokens never share a name: a part of a character by its bytes, as OpenAI does."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
