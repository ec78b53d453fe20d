"""Run a recorded request again, through the walk's own tokenizer, text path and engine, behind everybody's requests.

Invariants: what the record grants is what is asked for, choice by choice; no prefix of the cache is shared, neither
with a tenant nor with another replay; a replay's tokens are in no metric of the serving.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from appliance.errors import ApplianceError
from appliance.inference import InferenceRequest
from appliance.prompting import PlannedChoice, PromptPlan, plan_prompts
from appliance.replay.content import ReplayContent
from appliance.replay.recorded import RecordedEnd, RecordedRequest
from appliance.replay.verdict import NotReproducibleHere, Why
from appliance.running import Running
from appliance.served_model import ServedModel
from policies.decision import Obligations

PRIORITY = -1
"""Below every request's."""


class NotCounted:
    """Metrics of the serving that hear nothing of a replay."""

    def first_token(self, seconds: float) -> None:
        """Leave it out."""

    def next_tokens(self, seconds: float, num_tokens: int) -> None:
        """Leave it out."""


@dataclass(frozen=True, slots=True)
class Regenerated:
    """An answer that came again."""

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    finishes: tuple[str | None, ...]
    """As the record would tell them: a choice that was given up from outside has the record's word."""


def replay_request(request: RecordedRequest, content: ReplayContent) -> InferenceRequest:
    """Put the request together again."""
    facts = request.admitted
    return InferenceRequest(
        route="/v1/chat/completions" if facts.route == "/v1/chat/completions" else "/v1/completions",
        model=facts.model,
        prompts=content.prompts,
        n=facts.n,
        sampling=facts.sampling.sampling(content.stop),
    )


def replay_plan(
    request: RecordedRequest, end: RecordedEnd, content: ReplayContent, model: ServedModel, obligations: Obligations
) -> PromptPlan | NotReproducibleHere:
    """Plan what the record says was asked, leaving out choices that came to no token."""
    assert end.facts is not None, f"request {request.index} ended without an answer"
    facts = request.admitted
    if len(content.prompts) != facts.num_prompts:
        return NotReproducibleHere(Why.PROMPT_MISMATCH, f"the request had {facts.num_prompts} prompts")
    try:
        plan = plan_prompts(replay_request(request, content), model, obligations, lambda: 0)
    except ApplianceError as refusal:
        return NotReproducibleHere(Why.DOES_NOT_FIT, f"this model does not take the request now: {refusal.code}")
    if plan.num_prompt_tokens != facts.prompt_tokens:
        explanation = f"the prompt has {plan.num_prompt_tokens} tokens now and had {facts.prompt_tokens}"
        return NotReproducibleHere(Why.TOKENIZED_DIFFERENTLY, explanation)
    if any(choice.params.max_tokens < request.max_tokens(choice.index) for choice in plan.choices):
        return NotReproducibleHere(Why.DOES_NOT_FIT, "the answer may not be as long now as the record grants")
    choices = [
        _as_recorded(choice, request, end) for choice in plan.choices if end.facts.num_choice_tokens[choice.index]
    ]
    if not choices:
        return NotReproducibleHere(Why.NOTHING_GENERATED, "the request came to no token")
    return replace(plan, choices=tuple(choices))


def regenerated(running: Running, end: RecordedEnd) -> Regenerated | NotReproducibleHere:
    """Read what came, or why nothing did."""
    facts = end.facts
    assert facts is not None, "an answer"
    if running.abandoned is not None:
        return NotReproducibleHere(Why.CANCELLED, f"the replay was cut short: {running.abandoned}")
    if running.failure is not None:
        return NotReproducibleHere(Why.ENGINE_GAVE_UP, f"the engine did not take the replay: {running.failure.code}")
    num_choices = len(facts.num_choice_tokens)
    texts = [""] * num_choices
    token_ids: list[tuple[int, ...]] = [()] * num_choices
    finishes: list[str | None] = list(facts.finish_reasons)
    for choice in running.choices:
        if choice.failed or choice.finish is None:
            return NotReproducibleHere(Why.ENGINE_GAVE_UP, f"the engine gave the replay up: {choice.error}")
        texts[choice.index], token_ids[choice.index] = choice.text, tuple(choice.token_ids)
        if not (end.was_cut(choice.index) and choice.finish.reason == "length"):
            finishes[choice.index] = choice.finish.reason
    return Regenerated(tuple(texts), tuple(token_ids), tuple(finishes))


def _as_recorded(choice: PlannedChoice, request: RecordedRequest, end: RecordedEnd) -> PlannedChoice:
    """Grant what was granted; a choice that was cut is asked for as many tokens as it had come to."""
    assert end.facts is not None, "a choice of an answer"
    limit = end.facts.num_choice_tokens[choice.index] if end.was_cut(choice.index) else request.max_tokens(choice.index)
    return replace(
        choice, params=replace(choice.params, max_tokens=limit, min_tokens=min(choice.params.min_tokens, limit))
    )
