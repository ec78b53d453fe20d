"""config.json is believed only as far as it is understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_llama import ODD_SHAPES, digests_of, save_tiny_llama

from engine.models.config_reader import model_spec, read_model_spec
from engine.weights.errors import FileMalformed, FileRefused, LoadError, ModelUnsupported
from engine.weights.verified_folder import VerifiedFolder

SOUND: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_attention_heads": 8,
    "num_hidden_layers": 5,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 512,
}


def read(folder: Path) -> object:
    """Read the spec of a folder as it lies now."""
    return read_model_spec(VerifiedFolder(str(folder), digests_of(folder)))


def test_a_sound_config_becomes_a_spec() -> None:
    """Defaults are transformers' own: head_dim from the sizes, theta 10000, no tied head."""
    spec = model_spec(SOUND, {})
    assert (spec.hidden_size, spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.head_dim) == (64, 5, 8, 4, 8)
    assert (spec.ffn_size, spec.vocab_size, spec.rope_theta, spec.max_position_embeddings) == (172, 512, 1e4, 2048)
    assert (spec.tied_head, spec.bos_token_id, spec.eos_token_ids) == (False, 1, (2,))


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_it_reads_what_transformers_writes(tmp_path: Path, name: str) -> None:
    """The library's present spelling (rope_parameters, dtype) is understood."""
    shape = ODD_SHAPES[name]
    save_tiny_llama(tmp_path, shape)
    spec = read(tmp_path)
    assert spec.rope_theta == shape.rope_theta
    assert spec.head_dim == (shape.head_dim or shape.hidden_size // shape.num_heads)
    assert spec.tied_head == shape.tied
    assert spec.eos_token_ids == (2,)


def test_every_key_that_transformers_knows_of_a_plain_llama_is_understood() -> None:
    """A config with all defaults written out is served."""
    from transformers import LlamaConfig  # noqa: PLC0415 - the oracle is wanted here alone

    config = json.loads(LlamaConfig(architectures=["LlamaForCausalLM"]).to_json_string(use_diff=False))
    assert model_spec(config, {}).hidden_size == 4096


def test_end_tokens_come_from_both_files_without_repetition() -> None:
    """Chat models name more ends in generation_config.json than in config.json."""
    spec = model_spec({**SOUND, "eos_token_id": [2, 5]}, {"eos_token_id": [5, 9]})
    assert spec.eos_token_ids == (2, 5, 9)
    assert model_spec({**SOUND, "eos_token_id": None}, {}).eos_token_ids == ()


UNSUPPORTED: dict[str, dict[str, object]] = {
    "another architecture": {"architectures": ["GPT2LMHeadModel"]},
    "two architectures": {"architectures": ["LlamaForCausalLM", "LlamaForCausalLM"]},
    "no architecture": {"architectures": None},
    "remote code": {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}},
    "custom pipeline": {"custom_pipelines": {}},
    "quantised": {"quantization_config": {"quant_method": "gptq"}},
    "attention bias": {"attention_bias": True},
    "attention bias as a number": {"attention_bias": 1},
    "false as a number": {"attention_bias": 0},
    "mlp bias": {"mlp_bias": True},
    "another gate": {"hidden_act": "gelu"},
    "sliding window": {"sliding_window": 4096},
    "split pretraining": {"pretraining_tp": 2},
    "scaled rope": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "linear rope": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "scaled rope, new spelling": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "unknown rope key": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": 4.0}},
    "half rotary": {"partial_rotary_factor": 0.5},
    "interleaved rotary": {"rope_interleaved": True},
    "a key from the future": {"attention_temperature": 0.7},
    "encoder": {"is_encoder_decoder": True},
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_mathematics_that_is_not_implemented_is_refused_by_name(case: str) -> None:
    """The message names the key, so that nobody has to guess."""
    changes = UNSUPPORTED[case]
    with pytest.raises(ModelUnsupported, match=next(iter(changes))) as caught:
        model_spec({**SOUND, **changes}, {})
    assert caught.value.file == "config.json"
    assert caught.value.hint


@pytest.mark.parametrize(
    "neutral",
    [
        {"rope_scaling": None},
        {"rope_scaling": {"rope_type": "default"}},
        {"quantization_config": None},
        {"attention_bias": False},
        {"head_dim": None},
        {"num_key_value_heads": None},
        {"use_cache": False, "torch_dtype": "bfloat16", "transformers_version": "4.0"},
    ],
)
def test_a_switch_that_is_off_is_no_reason_to_refuse(neutral: dict[str, object]) -> None:
    """Only values that change the mathematics are refused."""
    assert model_spec({**SOUND, **neutral}, {}).hidden_size == 64


MALFORMED: dict[str, dict[str, object]] = {
    "zero layers": {"num_hidden_layers": 0},
    "negative": {"hidden_size": -64},
    "absurd vocabulary": {"vocab_size": 2**40},
    "true for one": {"num_key_value_heads": True},
    "a string": {"hidden_size": "64"},
    "a float": {"hidden_size": 64.0},
    "heads that do not divide": {"num_key_value_heads": 3},
    "more kv heads than heads": {"num_key_value_heads": 16},
    "odd head": {"head_dim": 7},
    "eps of zero": {"rms_norm_eps": 0},
    "eps of one": {"rms_norm_eps": 1},
    "eps as text": {"rms_norm_eps": "1e-5"},
    "theta of zero": {"rope_theta": 0},
    "infinite theta": {"rope_theta": 1e400},
    "two thetas": {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "tie as text": {"tie_word_embeddings": "false"},
    "eos outside the vocabulary": {"eos_token_id": 512},
    "eos as text": {"eos_token_id": "</s>"},
    "negative bos": {"bos_token_id": -1},
    "missing": {"hidden_size": None},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_impossible_sizes_are_refused_before_anything_is_allocated(case: str) -> None:
    """Types are strict and every size has a bound."""
    with pytest.raises(FileMalformed):
        model_spec({**SOUND, **MALFORMED[case]}, {})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', '{"rms_norm_eps": NaN}', "\ufeff{}", "null"])
def test_a_config_that_is_no_strict_json_is_refused(tmp_path: Path, text: str) -> None:
    """Two readers must never understand one file differently."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FileMalformed, match=r"config\.json"):
        read(tmp_path)


def test_an_oversized_config_is_refused(tmp_path: Path) -> None:
    """A megabyte is more than any config needs."""
    (tmp_path / "config.json").write_text(json.dumps(SOUND) + " " * 2**20)
    with pytest.raises(FileRefused, match="limit"):
        read(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    """The first file of a load is the first to be missed."""
    with pytest.raises(LoadError, match=r"config\.json"):
        read(tmp_path)
