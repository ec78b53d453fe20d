"""Changing scores before a token is chosen: logit bias, then min_tokens, then repetition, frequency and presence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.batch import SamplingRow
from engine.request import SamplingParams

OUT_OF_VOCABULARY = "token_id_out_of_range"


def changes_scores(row: SamplingRow) -> bool:
    """Say whether the row's scores differ from its logits."""
    params = row.params
    return bool(
        params.logit_bias
        or params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1.0
        or len(row.output_token_ids) < params.min_tokens
    )


def shape_scores(scores: Tensor, row: SamplingRow) -> str | None:
    """Turn one row of logits into scores, in place.

    Args:
        scores: `[vocab_size] float32`.
        row: its parameters and history.

    Returns:
        None, or a stable code when the row's parameters do not fit the vocabulary.
    """
    params = row.params
    vocab_size = len(scores)
    if any(not 0 <= token_id < vocab_size for token_id, _ in params.logit_bias):
        return OUT_OF_VOCABULARY
    for token_id, bias in params.logit_bias:
        scores[token_id] += bias
    if len(row.output_token_ids) < params.min_tokens:
        ends = [token_id for token_id in end_token_ids(params) if 0 <= token_id < vocab_size]
        scores[ends] = float("-inf")
    if params.repetition_penalty != 1.0:
        seen = torch.from_numpy(np.union1d(_ids(row.prompt_token_ids), _ids(row.output_token_ids)))
        values = scores[seen]
        scores[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if (params.frequency_penalty or params.presence_penalty) and len(row.output_token_ids):
        ids, counts = np.unique(_ids(row.output_token_ids), return_counts=True)
        penalties = params.frequency_penalty * counts.astype(np.float32) + params.presence_penalty
        scores[torch.from_numpy(ids)] -= torch.from_numpy(penalties.astype(np.float32))
    return None


def end_token_ids(params: SamplingParams) -> tuple[int, ...]:
    """Give the tokens that end this request."""
    return params.stop_token_ids if params.ignore_eos else params.stop_token_ids + params.eos_token_ids


def _ids(token_ids: object) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(token_ids, dtype=np.int64)
