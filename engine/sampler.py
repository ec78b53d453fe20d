"""Logits to tokens: greedy or drawn, each row a function of that row alone.

Order of the rules: logit bias, min_tokens, repetition, frequency and presence penalties, temperature, top_k, top_p,
min_p, draw.  A row that cannot be chosen from is an error of that row; the others never notice.

Error codes: `nan_logits` (the model's own scores are not finite), `token_id_out_of_range` (a bias names no token),
`invalid_scores` (the row's parameters made its scores NaN or infinite), `no_allowed_token` (they forbade every token).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.batch import SampledToken, SamplingRow
from engine.denormals import denormals_flushed
from engine.request import NAN_LOGITS
from engine.sampling.draws import draw_key, exponential_noise
from engine.sampling.logprobs import token_logprobs
from engine.sampling.shaping import changes_scores, shape_scores
from engine.sampling.truncation import truncate, truncates

INVALID_SCORES = "invalid_scores"
NO_ALLOWED_TOKEN = "no_allowed_token"  # noqa: S105 - a stable code, not a password

GREEDY_BELOW = 1e-5
"""A lower temperature is greedy: the division would say nothing that the maximum does not."""


class Sampler:
    """The CPU's `engine.batch.TokenSampler`; holds nothing."""

    @denormals_flushed()
    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> tuple[SampledToken, ...]:
        """Choose one token per row; contract in `engine.batch.TokenSampler`."""
        assert len(logits) == len(rows), f"{len(logits)} rows of logits for {len(rows)} requests"
        if not rows:
            return ()
        tokens = logits.argmax(dim=-1).tolist()
        errors = _infinite_rows(logits)
        chosen_apart = [
            index for index, row in enumerate(rows) if errors[index] is None and (changes_scores(row) or _draws(row))
        ]
        if chosen_apart:
            outcomes = _choose(logits[chosen_apart], [rows[index] for index in chosen_apart])
            for index, outcome in zip(chosen_apart, outcomes, strict=True):
                if isinstance(outcome, str):
                    errors[index] = outcome
                else:
                    tokens[index] = outcome
        return tuple(_answer(logits[index], row, tokens[index], errors[index]) for index, row in enumerate(rows))


def _draws(row: SamplingRow) -> bool:
    return not row.params.temperature < GREEDY_BELOW


def _infinite_rows(logits: Tensor) -> list[str | None]:
    # One NaN or infinity makes a row's sum so too, and a sum is the cheapest pass; only a suspect is looked at closely.
    sums = logits.sum(dim=-1).isfinite().tolist()
    return [
        None if sum_is_finite or bool(logits[row].isfinite().all()) else NAN_LOGITS
        for row, sum_is_finite in enumerate(sums)
    ]


def _choose(scores: Tensor, rows: list[SamplingRow]) -> list[int | str]:
    """Choose from rows whose logits need more than their maximum; a string is that row's error code.

    Args:
        scores: `[num_rows, vocab_size] float32`, the logits; overwritten.
        rows: one per row.
    """
    shaped = [shape_scores(scores[index], row) if changes_scores(row) else None for index, row in enumerate(rows)]
    highest = scores.amax(dim=-1, keepdim=True)
    outcomes: list[int | str] = []
    for error, best, token_id in zip(shaped, highest.squeeze(1).tolist(), scores.argmax(dim=-1).tolist(), strict=True):
        if error is not None:
            outcomes.append(error)
        elif best == float("-inf"):
            outcomes.append(NO_ALLOWED_TOKEN)
        else:
            outcomes.append(token_id if best < float("inf") else INVALID_SCORES)
    drawing = [index for index, row in enumerate(rows) if _draws(row) and not isinstance(outcomes[index], str)]
    if drawing:
        drawn = _draw(scores[drawing] - highest[drawing], [rows[index] for index in drawing])
        for index, outcome in zip(drawing, drawn, strict=True):
            outcomes[index] = outcome
    return outcomes


def _draw(scores: Tensor, rows: list[SamplingRow]) -> list[int | str]:
    """Draw one token per row.

    Args:
        scores: `[num_rows, vocab_size] float32`, the maximum of each row at 0, so that no temperature overflows.
        rows: one per row.
    """
    temperatures = torch.tensor([row.params.temperature for row in rows], dtype=torch.float32).unsqueeze(1)
    probs = torch.softmax(scores / temperatures, dim=-1)
    keys = [draw_key(row.params.seed, len(row.prompt_token_ids) + len(row.output_token_ids)) for row in rows]
    outcomes: list[int | str] = [INVALID_SCORES] * len(rows)
    sound = (~probs[:, 0].isnan()).tolist()  # a NaN anywhere makes a whole softmax NaN
    whole = [index for index, row in enumerate(rows) if sound[index] and not truncates(row.params)]
    cut = [index for index, row in enumerate(rows) if sound[index] and truncates(row.params)]
    if whole:
        token_ids = torch.arange(probs.shape[1]).expand(len(whole), -1)
        picked = (probs[whole] / exponential_noise([keys[index] for index in whole], token_ids)).argmax(dim=-1)
        for index, token_id in zip(whole, picked.tolist(), strict=True):
            outcomes[index] = token_id
    if cut:
        left = truncate(probs[cut], [rows[index].params for index in cut])
        for index, candidates in zip(cut, left, strict=True):
            noise = exponential_noise([keys[index]], candidates.token_ids.unsqueeze(0)).squeeze(0)
            outcomes[index] = int(candidates.token_ids[(candidates.probs / noise).argmax()])
    return outcomes


def _answer(logits: Tensor, row: SamplingRow, token_id: int, error: str | None) -> SampledToken:
    if error is not None:
        return SampledToken(token_id=-1, error=error)
    if row.params.num_logprobs is None:
        return SampledToken(token_id=token_id)
    return SampledToken(token_id=token_id, logprobs=token_logprobs(logits, token_id, row.params.num_logprobs))
