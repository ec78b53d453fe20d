"""The facts of a request's records: what an auditor reads, built in one place from the walk's own values.

Nothing here is content.  Every value is a count, a digest, a code, a parameter or a keyed commitment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.choice_text import ChoiceText
from appliance.errors import HTTP_STATUS, ApplianceError
from appliance.gate import Asking
from appliance.inference import InferenceRequest, Usage
from appliance.prompting import PromptPlan
from appliance.run_counters import usage_facts
from appliance.served_model import ServedModel
from audit.event import JsonValue
from engine.request import SequenceUsage
from policies.decision import Allow

NO_ADAPTER = "none"
"""This engine loads a model's own weights and nothing over them."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds from admission's start; None where the request never came so far."""

    queue_ms: int | None
    first_token_ms: int | None
    total_ms: int


def admitted_facts(
    asking: Asking,
    request: InferenceRequest,
    model: ServedModel,
    allow: Allow,
    plan: PromptPlan,
    commitments: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """Give the facts of `request:admitted`: enough to replay the decision and, but for level `none`, the generation.

    Parameters can say what was asked (a bias spells words, a seed makes the same answer again), so `none` has none.
    """
    return {
        "adapter": NO_ADAPTER,
        "commitments": commitments,
        "content_level": allow.obligations.log_level,
        "decision": "allow",
        "dtype": model.dtype,
        "engine_build": model.engine_build,
        "key_id": asking.principal.key_id,
        "label": str(asking.label),
        "max_tokens_cap": allow.obligations.max_tokens_cap,
        "model": model.name,
        "model_loaded_index": model.loaded_index,
        "model_root": model.root,
        "n": request.n,
        "num_prompts": len(request.prompts),
        "policy_digest": allow.policy_digest,
        "policy_ids": list(allow.policy_ids),
        "prompt_tokens": plan.num_prompt_tokens,
        "quantisation": model.quantization,
        "route": asking.route,
        "source": asking.source,
        "stream": request.stream,
        **({} if allow.obligations.log_level == "none" else {"sampling": _sampling(request, plan)}),
    }


def _sampling(request: InferenceRequest, plan: PromptPlan) -> dict[str, JsonValue]:
    params = plan.choices[0].params
    return {
        "frequency_penalty": params.frequency_penalty,
        "ignore_eos": params.ignore_eos,
        "include_stop": request.sampling.include_stop_in_output,
        "logit_bias": [[token_id, bias] for token_id, bias in params.logit_bias],
        "logprobs": params.num_logprobs,
        "max_tokens": [choice.params.max_tokens for choice in plan.choices[:: request.n]],
        "min_p": params.min_p,
        "min_tokens": params.min_tokens,
        "num_stop_strings": len(request.sampling.stop),
        "presence_penalty": params.presence_penalty,
        "repetition_penalty": params.repetition_penalty,
        "seed": str(plan.seed),
        "stop_token_ids": list(params.stop_token_ids),
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
    }


def terminal_facts(
    asking: Asking,
    admitted_index: int,
    choices: Sequence[ChoiceText],
    usage: Usage,
    timing: Timing,
    *,
    outcome: str,
    code: str | None,
    commitments: Mapping[str, JsonValue],
    engine_usage: SequenceUsage,
    subject_erased: bool,
) -> dict[str, JsonValue]:
    """Give the facts of a request's one terminal record.

    `subject_erased` stands there when the key that the request began under was destroyed meanwhile, and only then.
    """
    return {
        **({"subject_erased": True} if subject_erased else {}),
        "admitted_index": admitted_index,
        "cached_tokens": usage.cached_tokens,
        "code": code,
        "commitments": commitments,
        "completion_tokens": usage.completion_tokens,
        "engine": usage_facts(engine_usage),
        "finish_reasons": [choice.finish.reason if choice.finish else None for choice in choices],
        "first_token_ms": timing.first_token_ms,
        "num_choice_tokens": [choice.num_tokens for choice in choices],
        "num_preemptions": sum(choice.num_preemptions for choice in choices),
        "outcome": outcome,
        "prompt_tokens": usage.prompt_tokens,
        "queue_ms": timing.queue_ms,
        "route": asking.route,
        "source": asking.source,
        "total_ms": timing.total_ms,
    }


def refused_facts(asking: Asking, refusal: ApplianceError, param: str) -> dict[str, JsonValue]:
    """Give the facts of `request:refused`: which rule the request broke, and never what it said.

    Args:
        asking: who asked.
        refusal: what the caller hears.
        param: name of the field at fault, out of a closed list; a name that the client made up is its content.
    """
    status, _ = HTTP_STATUS[type(refusal)]
    return {
        "code": refusal.code,
        "key_id": asking.principal.key_id,
        "label": str(asking.label),
        "outcome": "refused",
        "param": param,
        "route": asking.route,
        "source": asking.source,
        "status": status,
    }
