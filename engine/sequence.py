"""The state of one sequence: what is known of it, how much of that is computed, and which pages hold it.

Index ranges of the sequence's tokens:
    [0, num_computed)             have their KV in `page_ids`
    [num_computed, num_tokens)    known, not computed: prompt, or what a preemption gave up, or the newest token
Generated tokens outlive their pages: after a preemption they are computed again like a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from engine.page_node import PageKey, PageNode
from engine.request import FinishReason, GenerationRequest, SamplingParams


class SequenceStatus(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    """Holds no pages; new, or preempted."""
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """Owner of its fields: `Scheduler.commit`, and `KvMemory` for those about pages; nobody else writes."""

    __slots__ = (
        "_page_keys",
        "_page_size",
        "added_at",
        "arrival",
        "first_scheduled_at",
        "has_sent_event",
        "node",
        "num_cached_tokens",
        "num_computed",
        "num_computed_ever",
        "num_preemptions",
        "output_token_ids",
        "page_ids",
        "request",
        "status",
    )

    def __init__(self, request: GenerationRequest, *, arrival: int, added_at: float, page_size: int) -> None:
        self.request = request
        self.arrival = arrival
        """Rank among all sequences of this core: smaller came earlier."""
        self.added_at = added_at
        self.status = SequenceStatus.WAITING

        # tokens
        self.output_token_ids: list[int] = []
        self.num_computed = 0
        self.num_computed_ever = 0
        """The largest `num_computed` so far: below it everything is recomputation."""

        # pages
        self.page_ids: tuple[int, ...] = ()
        """The first `node.depth` of them are in the prefix tree and read-only; the others are this sequence's alone."""
        self.node: PageNode | None = None
        """Deepest locked node of the prefix tree; set exactly while running."""
        self._page_size = page_size
        self._page_keys: list[PageKey] = []

        # for the first event and the counters
        self.first_scheduled_at: float | None = None
        self.num_cached_tokens: int | None = None
        """Prompt tokens found in the prefix tree at the first scheduling."""
        self.num_preemptions = 0
        self.has_sent_event = False

    @property
    def request_id(self) -> str:
        """Of the request that it answers."""
        return self.request.request_id

    @property
    def params(self) -> SamplingParams:
        """Of the request that it answers."""
        return self.request.params

    @property
    def num_tokens(self) -> int:
        """Known tokens, prompt and output."""
        return len(self.request.token_ids) + len(self.output_token_ids)

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is served first and preempted last: the higher class, and in it the older."""
        return (-self.request.priority, self.arrival)

    @property
    def num_uncomputed(self) -> int:
        """Known tokens whose KV is missing; at least one while running."""
        return self.num_tokens - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """One token is left to compute until the next one can be chosen."""
        return self.num_uncomputed == 1

    def tokens_between(self, start: int, end: int) -> tuple[int, ...]:
        """Give the known tokens of [start, end), without copying the others."""
        prompt = self.request.token_ids
        num_prompt = len(prompt)
        if start >= num_prompt:
            return tuple(self.output_token_ids[start - num_prompt : end - num_prompt])
        if end <= num_prompt:
            return prompt[start:end]
        return prompt[start:] + tuple(self.output_token_ids[: end - num_prompt])

    def page_key(self, index: int) -> PageKey:
        """Give the tokens of page `index`, which must all be known.  Made once per page: tokens never change."""
        keys = self._page_keys
        while len(keys) <= index:
            start = len(keys) * self._page_size
            keys.append(self.tokens_between(start, start + self._page_size))
        return keys[index]

    def page_keys(self) -> Iterator[PageKey]:
        """Give the tokens of the pages that are fully known, in order."""
        return (self.page_key(index) for index in range(self.num_tokens // self._page_size))


def finish_after(sequence: Sequence, token_id: int, max_model_len: int) -> FinishReason | None:
    """Say whether the sequence ends with `token_id`, which is not yet appended to it.

    An end that comes before `min_tokens` is none: the sampler masks such tokens, and a mask is not a promise.
    """
    params = sequence.params
    num_output = len(sequence.output_token_ids) + 1
    is_end = token_id in params.stop_token_ids or (not params.ignore_eos and token_id in params.eos_token_ids)
    if is_end and num_output > params.min_tokens:
        return "stop"
    if num_output >= params.max_tokens or sequence.num_tokens + 1 >= max_model_len:
        return "length"
    return None
