"""A replay as its records and its answer tell it: counts, places and codes, never a text.  Pure."""

from __future__ import annotations

from appliance.errors import ApplianceError
from appliance.gate import Asking
from appliance.replay.content import ReplayContent, Source
from appliance.replay.verdict import NAMES, Difference, NotReproduced, NotReproducibleHere, Reproduced, Verdict, Why
from appliance.run_counters import usage_facts
from audit.event import JsonValue, Receipt
from engine.request import SequenceUsage


def started_facts(asking: Asking, index: int, source: Source) -> dict[str, JsonValue]:
    """Give the facts of `replay:started`: what is to run again, and which texts were brought for it."""
    supplied: list[JsonValue] = []
    if isinstance(source, ReplayContent):
        given = {"prompt": True, "stop": bool(source.stop), "output": source.outputs is not None}
        supplied = [phase for phase, is_given in given.items() if is_given]
    elif source is not None:
        supplied = ["sealed"]
    return {**_asked(asking), "replayed_index": index, "supplied": supplied}


def ended_facts(
    asking: Asking,
    index: int,
    started: Receipt,
    verdict: Verdict | ApplianceError,
    num_runs: int,
    num_prompt_tokens: int,
    num_completion_tokens: int,
    engine_usage: SequenceUsage,
) -> dict[str, JsonValue]:
    """Give the facts of `replay:ended`."""
    told = _no_verdict(verdict) if isinstance(verdict, ApplianceError) else verdict_facts(verdict)
    return {
        **_asked(asking),
        **told,
        "completion_tokens": num_completion_tokens,
        "engine": usage_facts(engine_usage),
        "num_runs": num_runs,
        "outcome": _outcome(verdict),
        "prompt_tokens": num_prompt_tokens,
        "replayed_index": index,
        "started_index": started.index,
    }


def verdict_facts(verdict: Verdict) -> dict[str, JsonValue]:
    """Give a verdict as a record and as an answer hold it; what does not apply is null."""
    difference = verdict.difference if isinstance(verdict, (NotReproduced, NotReproducibleHere)) else None
    return {
        "difference": None if difference is None else _difference_facts(difference),
        "differences": list(verdict.differences) if isinstance(verdict, Reproduced) else [],
        "explanation": verdict.explanation if isinstance(verdict, NotReproducibleHere) else None,
        "reason": verdict.why.value if isinstance(verdict, NotReproducibleHere) else None,
        "verdict": NAMES[type(verdict)],
    }


def _asked(asking: Asking) -> dict[str, JsonValue]:
    return {"key_id": asking.principal.key_id, "route": asking.route, "source": asking.source}


def _difference_facts(difference: Difference) -> dict[str, JsonValue]:
    return {
        "character": difference.character,
        "choice": difference.choice,
        "finish": difference.finish,
        "tokens": None if difference.tokens is None else list(difference.tokens),
    }


def _no_verdict(refusal: ApplianceError) -> dict[str, JsonValue]:
    return {"code": refusal.code, "verdict": None}


def _outcome(verdict: Verdict | ApplianceError) -> str:
    if isinstance(verdict, ApplianceError):
        return "refused"
    if isinstance(verdict, NotReproducibleHere) and verdict.why is Why.CANCELLED:
        return "cancelled"
    return "completed"
