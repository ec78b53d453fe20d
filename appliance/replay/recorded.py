"""Two leaves of the log -> the request they record, with everything that is needed to run it again.  Pure.

Facts come from entries that the reader proved against their hashes; still every one is read by its type, because a
release before this one wrote fewer of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from appliance.audit_trail import PAIRING
from appliance.inference import Sampling
from audit.entry import Entry
from audit.subject_keys.commitment import Commitment

T = TypeVar("T")


class NotARequest(Exception):
    """The entry records no admitted request."""


class NothingCommitted(Exception):
    """Policy asked for no commitments to what the request said."""


class RecordIncomplete(Exception):
    """The leaves lack a fact: an older release wrote them, or their end could not be told."""


@dataclass(frozen=True, slots=True)
class HmacFacts:
    """One commitment as a leaf holds it."""

    hmac: str
    key_id: str

    def commitment(self) -> Commitment:
        """Give it in the log's terms."""
        return Commitment(self.key_id, self.hmac)


@dataclass(frozen=True, slots=True)
class MarksFacts:
    """The marks over each choice's tokens as a leaf holds them."""

    every: int
    key_id: str
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskedFacts:
    """`commitments` of `request:admitted`; empty where policy obliged to none."""

    prompt: HmacFacts | None = None
    stop: HmacFacts | None = None


@dataclass(frozen=True, slots=True)
class AnsweredFacts:
    """`commitments` of a terminal leaf."""

    output: HmacFacts | None = None
    tokens: MarksFacts | None = None


@dataclass(frozen=True, slots=True)
class SamplingFacts:
    """`sampling` of `request:admitted`: what was granted, stop strings only counted."""

    frequency_penalty: float
    ignore_eos: bool
    include_stop: bool
    logit_bias: tuple[tuple[int, float], ...]
    max_tokens: tuple[int, ...]
    min_p: float
    min_tokens: int
    num_stop_strings: int
    presence_penalty: float
    repetition_penalty: float
    seed: str
    stop_token_ids: tuple[int, ...]
    temperature: float
    top_k: int
    top_p: float

    def sampling(self, stop: tuple[str, ...]) -> Sampling:
        """Give the request's wishes, but for the length, of which each choice has its own."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            seed=int(self.seed),
            stop=stop,
            stop_token_ids=self.stop_token_ids,
            include_stop_in_output=self.include_stop,
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
        )


@dataclass(frozen=True, slots=True)
class AdmittedFacts:
    """What a replay reads of `request:admitted`."""

    commitments: AskedFacts
    label: str
    model: str
    model_loaded_index: int
    model_root: str
    n: int
    num_prompts: int
    prompt_tokens: int
    route: str
    sampling: SamplingFacts


@dataclass(frozen=True, slots=True)
class EndedFacts:
    """What a replay reads of a terminal leaf."""

    cached_tokens: int
    commitments: AnsweredFacts
    finish_reasons: tuple[str | None, ...]
    num_choice_tokens: tuple[int, ...]
    num_preemptions: int
    outcome: str
    subject_erased: bool = False
    """The subject's key was destroyed while the request ran: its answer has no commitment."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One admitted request."""

    index: int
    request_id: str
    actor: str
    tenant: str
    admitted: AdmittedFacts

    @property
    def label(self) -> int:
        """Its sensitivity."""
        return int(self.admitted.label)

    def max_tokens(self, choice: int) -> int:
        """Give what one choice was granted."""
        return self.admitted.sampling.max_tokens[choice // self.admitted.n]


@dataclass(frozen=True, slots=True)
class RecordedEnd:
    """How it ended."""

    index: int
    kind: str
    facts: EndedFacts | None
    """None: the leaf says nothing of an answer, as that of a request which died with the appliance."""

    def was_cut(self, choice: int) -> bool:
        """Whether the choice was given up from outside, so that its length is not the model's doing."""
        return self.facts is not None and self.facts.finish_reasons[choice] in (None, "cancelled", "error")


def admitted_index(entry: Entry) -> int:
    """Give the index of the admission that the entry is, or ends.

    Raises:
        NotARequest: neither.
    """
    event = entry.leaf.event
    if event.kind == PAIRING.opening:
        return entry.index
    index = event.facts.get("admitted_index")
    if event.kind in PAIRING.terminals and isinstance(index, int):
        return index
    raise NotARequest(event.kind)


def read_request(entry: Entry) -> RecordedRequest:
    """Read an admission.

    Raises:
        NothingCommitted: nothing ties a text to it, and at level `none` it lacks the parameters too.
        RecordIncomplete: it lacks a fact.
    """
    event = entry.leaf.event
    if event.facts.get("content_level") in ("none", "metadata"):
        raise NothingCommitted
    facts = _typed(event.facts, AdmittedFacts)
    if len(facts.sampling.max_tokens) != facts.num_prompts:
        raise RecordIncomplete(f"{len(facts.sampling.max_tokens)} lengths for {facts.num_prompts} prompts")
    return RecordedRequest(entry.index, event.subject, event.actor, event.tenant, facts)


def read_end(entries: Sequence[Entry], request: RecordedRequest) -> RecordedEnd | None:
    """Read the end among the entries of a request's subject; None while it runs.

    Raises:
        RecordIncomplete: it tells of an answer, and lacks a fact of it.
    """
    entry = next((one for one in entries if one.leaf.event.kind in PAIRING.terminals), None)
    if entry is None:
        return None
    event = entry.leaf.event
    if "finish_reasons" not in event.facts:
        return RecordedEnd(entry.index, event.kind, None)
    facts = _typed(event.facts, EndedFacts)
    num_choices = request.admitted.num_prompts * request.admitted.n
    if not len(facts.finish_reasons) == len(facts.num_choice_tokens) == num_choices:
        raise RecordIncomplete(f"{len(facts.finish_reasons)} ends for {num_choices} choices")
    return RecordedEnd(entry.index, event.kind, facts)


def _typed(facts: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(dict(facts), kind)
    except msgspec.ValidationError as refusal:
        raise RecordIncomplete(str(refusal)) from None
