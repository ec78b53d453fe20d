"""The weights before the first step: random, but for one copying circuit in the first two layers.

Promise: a function of the seed and the shape alone.
Never: holds anything about notes, names or words; the circuit copies whatever followed a token the last time.

Why: a decoder can answer about a note only once it can look back ("the token before was this one, what
came next?"). From random weights that skill took longer to appear than this model's whole training; laid
in by hand it is there at step 0 and training builds on it.

How, on the residual stream of width d and heads of size h:
    dimension 0          the same in every embedding: something to attend by position with
    1 .. d - h/2 - 1     the token itself, random
    d - h/2 .. d - 1     free in the embeddings; layer 0 writes the previous token there
Layer 0, head 0 looks one position back: its queries and keys use dimension 0 in the fast rotary pairs, the
key turned by one step. Layer 1, head 0 compares the token with every position's previous token, in the slow
rotary pairs that distance hardly turns, and copies the token found there.
"""

from __future__ import annotations

import torch
from starter_llama import Attention, Llama, LlamaShape
from torch import Tensor, nn

_EMBEDDING_STD = 0.3
_CONSTANT = 1.5
_POSITION_GAIN = 1.25
_MATCH_GAIN = 1.6
_COPY_GAIN = 1.0
_PREVIOUS_GAIN = 0.3
# Tied embeddings of this size would make the first logits huge; the last norm starts small instead.
_LAST_NORM = 0.2


def build_model(seed: int, shape: LlamaShape) -> Llama:
    """Draw the first weights."""
    torch.manual_seed(seed)
    model = Llama(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):
                # What adds to the residual stream starts small, so that depth does not swell it.
                gain = 0.1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(parameter, std=gain * parameter.shape[1] ** -0.5)
        model.model.norm.weight.fill_(_LAST_NORM)
        _lay_copying_circuit(model)
    return model.train()


def _orthonormal_rows(rows: int, columns: int) -> Tensor:
    rows_first: Tensor = torch.linalg.qr(torch.randn(columns, rows))[0].T
    return rows_first


def _lay_copying_circuit(model: Llama) -> None:
    shape = model.shape
    num_previous = shape.head_dim // 2
    first_previous = shape.hidden_size - num_previous
    embeddings = model.model.embed_tokens.weight
    nn.init.normal_(embeddings, std=_EMBEDDING_STD)
    embeddings[:, 0] = _CONSTANT
    embeddings[:, first_previous:] *= 0.1
    token_reader = _orthonormal_rows(num_previous, first_previous - 1)
    first, second = (model.get_submodule(f"model.layers.{index}.self_attn") for index in (0, 1))
    assert isinstance(first, Attention)
    assert isinstance(second, Attention)
    _lay_previous_token_head(first, shape, token_reader)
    _lay_matching_head(second, shape, token_reader)


def _lay_previous_token_head(attention: Attention, shape: LlamaShape, token_reader: Tensor) -> None:
    half = shape.head_dim // 2
    num_pairs = max(1, half * 5 // 16)
    num_previous, num_token = token_reader.shape
    pairs = torch.arange(num_pairs)
    turn = shape.rope_theta ** -(2.0 * pairs / shape.head_dim)
    query, key, value, out = (
        attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, attention.o_proj.weight,
    )  # fmt: skip
    query[: shape.head_dim] *= 0.1
    key[: shape.head_dim] *= 0.1
    query[pairs, 0] = _POSITION_GAIN
    key[pairs, 0] = _POSITION_GAIN * turn.cos()
    key[pairs + half, 0] = _POSITION_GAIN * turn.sin()
    value[:num_previous] *= 0.1
    value[:num_previous, 1 : 1 + num_token] = token_reader
    out[:, :num_previous] *= 0.1
    out[-num_previous:, :num_previous] = _PREVIOUS_GAIN * torch.eye(num_previous)


def _lay_matching_head(attention: Attention, shape: LlamaShape, token_reader: Tensor) -> None:
    half, quarter = shape.head_dim // 2, shape.head_dim // 4
    num_previous, num_token = token_reader.shape
    slow = torch.cat((torch.arange(quarter, half), torch.arange(half + quarter, 2 * half)))
    query, key, value, out = (
        attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, attention.o_proj.weight,
    )  # fmt: skip
    query[: shape.head_dim] *= 0.1
    key[: shape.head_dim] *= 0.1
    query[slow, 1 : 1 + num_token] = _MATCH_GAIN * token_reader
    key[slow, -num_previous:] = _MATCH_GAIN * torch.eye(num_previous)
    num_copied = min(shape.head_dim, num_token)
    copier = _orthonormal_rows(num_copied, num_token)
    value[:num_copied] *= 0.1
    value[:num_copied, 1 : 1 + num_token] = copier
    out[:, :num_copied] *= 0.1
    out[1 : 1 + num_token, :num_copied] = _COPY_GAIN * copier.T
