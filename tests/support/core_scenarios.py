"""Drawn loads for the engine's core, and one way to run them to the end with every book checked after every step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from contract_runner import VOCAB_SIZE, ContractCore, build_contract_core, expected_answer
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.request import GenerationRequest, SamplingParams, StepEvent


def core_config(**changes) -> EngineConfig:
    """Give a small configuration: 4 tokens a page, 16 pages, 16 tokens and 4 sequences a step, 48 tokens at most."""
    small = {
        "page_size": 4,
        "num_pages": 16,
        "max_num_batched_tokens": 16,
        "max_num_sequences": 4,
        "max_model_len": 48,
    }
    return EngineConfig(model_dir="/nowhere", file_digests=(), **(small | changes))


def generation_request(request_id: str, token_ids: Iterable[int] = (1, 2, 3), **changes) -> GenerationRequest:
    """Give a request; names of `SamplingParams` go to the params, the others to the request."""
    in_params = {name: value for name, value in changes.items() if name in SamplingParams.__dataclass_fields__}
    others = {name: value for name, value in changes.items() if name not in in_params}
    params = SamplingParams(**({"max_tokens": 4} | in_params))
    return GenerationRequest(request_id, tuple(token_ids), params, **others)


@dataclass
class Transcript:
    """What the core told of each request, and what its steps computed."""

    events: dict[str, list[StepEvent]] = field(default_factory=dict)
    steps: list[tuple[StepEvent, ...]] = field(default_factory=list)

    def token_ids(self, request_id: str) -> tuple[int, ...]:
        """All output tokens of a request."""
        return tuple(token_id for event in self.events.get(request_id, ()) for token_id in event.token_ids)

    def finish(self, request_id: str) -> str | None:
        """How a request ended."""
        events = self.events.get(request_id)
        return events[-1].finish if events else None

    def error(self, request_id: str) -> str | None:
        """With which code a request ended."""
        return self.events[request_id][-1].error

    def heard_at(self, request_id: str) -> list[int]:
        """The steps that said something of a request."""
        return [
            number
            for number, events in enumerate(self.steps)
            if any(event.request_id == request_id for event in events)
        ]

    def take(self, events: tuple[StepEvent, ...]) -> None:
        """Note one step."""
        self.steps.append(events)
        for event in events:
            of_request = self.events.setdefault(event.request_id, [])
            assert not of_request or of_request[-1].finish is None, f"{event.request_id} is heard of after its end"
            of_request.append(event)


def run_to_end(core: ContractCore, transcript: Transcript | None = None, *, max_steps: int = 4000) -> Transcript:
    """Step until nothing is left, checking the books after each step."""
    transcript = transcript or Transcript()
    for _ in range(max_steps):
        if not core.has_work():
            return transcript
        transcript.take(core.step())
        core.check_integrity()
    raise AssertionError(f"work is left after {max_steps} steps: {core.stats()}")


@dataclass(frozen=True)
class Arrival:
    """A request, the step before which it comes, and the step before which it is cancelled."""

    request: GenerationRequest
    at_step: int
    cancelled_at_step: int | None = None


@dataclass(frozen=True)
class Scenario:
    """A configuration and what happens to it."""

    config: EngineConfig
    arrivals: tuple[Arrival, ...]

    def run(self) -> tuple[ContractCore, Transcript]:
        """Let it all happen."""
        core = build_contract_core(self.config)
        transcript = Transcript()
        last_step = max((max(a.at_step, a.cancelled_at_step or 0) for a in self.arrivals), default=0)
        for step in range(last_step + 1):
            for arrival in self.arrivals:
                if arrival.at_step == step:
                    core.add(arrival.request)
            for arrival in self.arrivals:
                if arrival.cancelled_at_step == step:
                    core.cancel(arrival.request.request_id)
            transcript.take(core.step() if core.has_work() else ())
            core.check_integrity()
        return core, run_to_end(core, transcript)

    def expected(self, arrival: Arrival) -> tuple[tuple[int, ...], str]:
        """What this request gets when it is alone on a machine with enough memory, cut at this machine's memory."""
        answer = expected_answer(arrival.request, self.config.max_model_len)
        num_prompt = len(arrival.request.token_ids)
        num_slots = self.config.num_pages * self.config.page_size
        if num_prompt > num_slots:
            return (), "error"
        if num_prompt + len(answer.token_ids) - 1 > num_slots:  # the last token needs no slot
            return answer.token_ids[: num_slots - num_prompt + 1], "error"
        return answer.token_ids, answer.finish


@st.composite
def configs(draw: st.DrawFn) -> EngineConfig:
    """Draw memory and budgets, mostly too small for comfort."""
    return core_config(
        page_size=draw(st.integers(1, 5)),
        num_pages=draw(st.integers(4, 24)),
        max_num_batched_tokens=draw(st.integers(1, 20)),
        max_num_sequences=draw(st.integers(1, 8)),
        max_model_len=draw(st.integers(20, 60)),
        enable_prefix_cache=draw(st.sampled_from((True, True, True, False))),
    )


@st.composite
def sampling_params(draw: st.DrawFn) -> SamplingParams:
    """Draw ends of generation, and little else: the core knows nothing of the rest."""
    max_tokens = draw(st.integers(1, 16))
    return SamplingParams(
        max_tokens=max_tokens,
        seed=draw(st.integers(0, 1)),
        stop_token_ids=tuple(draw(st.sets(st.integers(0, VOCAB_SIZE - 1), max_size=2))),
        eos_token_ids=tuple(draw(st.sets(st.integers(0, VOCAB_SIZE - 1), max_size=2))),
        min_tokens=draw(st.integers(0, max_tokens)),
        ignore_eos=draw(st.booleans()),
        num_logprobs=draw(st.sampled_from((None, 0))),
    )


@st.composite
def scenarios(draw: st.DrawFn, *, with_cancels: bool = True, num_priorities: int = 2) -> Scenario:
    """Draw a load whose prompts share prefixes, across and within salts, clients and classes."""
    config = draw(configs())
    stem = draw(st.lists(st.integers(0, 2), min_size=12, max_size=12))
    arrivals = []
    for index in range(draw(st.integers(1, 10))):
        tail = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
        request = GenerationRequest(
            request_id=f"r{index}",
            token_ids=(*stem[: draw(st.integers(0, 12))], *tail),
            params=draw(sampling_params()),
            cache_salt=draw(st.sampled_from((b"", b"tenant"))),
            fairness_key=draw(st.sampled_from(("x", "y"))),
            priority=draw(st.integers(0, num_priorities - 1)),
        )
        at_step = draw(st.integers(0, 6))
        is_cancelled = with_cancels and draw(st.integers(0, 3)) == 0
        cancelled_at_step = draw(st.integers(at_step, at_step + 12)) if is_cancelled else None
        arrivals.append(Arrival(request, at_step, cancelled_at_step))
    return Scenario(config, tuple(arrivals))
