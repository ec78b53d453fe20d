"""config.json to `ModelSpec`: a closed list of architectures, and of keys.

A key that is neither read nor known to be harmless is refused by name: it could change the mathematics, and then the
model would answer wrongly without a sign.  A key that switches something on which is not implemented (a rope scaling,
a bias, a quantisation) is refused unless its value switches it off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from engine.models.spec import Architecture, ModelSpec
from engine.weights.errors import FileMalformed, ModelUnsupported
from engine.weights.strict_json import parse_json_object
from engine.weights.verified_folder import VerifiedFolder

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
MAX_CONFIG_BYTES = 2**20

HARMLESS_KEYS = frozenset(
    {
        "_name_or_path",  # where someone once had it
        "attention_dropout",  # training only
        "chunk_size_feed_forward",  # same product, cut up
        "dtype",  # our own dtype comes from the engine's configuration
        "id2label",  # heads that a decoder does not have
        "initializer_range",  # training only
        "label2id",
        "output_attentions",  # what the Python object returns there
        "output_hidden_states",
        "pad_token_id",  # batches are never padded with tokens here
        "problem_type",
        "return_dict",
        "torch_dtype",  # the older name of dtype
        "transformers_version",
        "use_cache",
    }
)

NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "attention_bias": (False,),
    "hidden_act": ("silu",),
    "is_encoder_decoder": (False,),
    "mlp_bias": (False,),
    "model_type": ("llama",),
    "partial_rotary_factor": (1.0,),
    "pretraining_tp": (1,),
    "quantization_config": (None,),
    "rope_interleaved": (False,),
    "rope_scaling": (None,),
}
"""Keys that would change the mathematics, and the values at which they do not."""

READ_KEYS = frozenset(
    {
        "architectures",
        "bos_token_id",
        "eos_token_id",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_theta",
        "tie_word_embeddings",
        "vocab_size",
    }
)

DEFAULT_ROPE = ({"rope_type": "default"}, {"type": "default"})
DEFAULT_ROPE_THETA = 10000.0
DEFAULT_MAX_POSITIONS = 2048


def read_model_spec(folder: VerifiedFolder) -> ModelSpec:
    """Read the spec from a folder's verified config.json, and more end tokens from its generation_config.json.

    Raises:
        LoadError: a file is refused, malformed, or asks for something that is not implemented.
    """
    config = _read_object(folder, CONFIG_FILE)
    generation = _read_object(folder, GENERATION_FILE) if GENERATION_FILE in folder else {}
    return model_spec(config, generation)


def model_spec(config: dict[str, object], generation: dict[str, object]) -> ModelSpec:
    """Judge a parsed config.json; `generation` is the parsed generation_config.json or empty."""
    architecture = _architecture(config)
    for key, value in config.items():
        _check_key(key, value)
    fields = _Fields(config)
    hidden_size = fields.count("hidden_size", 2**16)
    num_heads = fields.count("num_attention_heads", 2**10)
    num_kv_heads = fields.count("num_key_value_heads", num_heads, default=num_heads)
    vocab_size = fields.count("vocab_size", 2**21)
    spec = ModelSpec(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_layers=fields.count("num_hidden_layers", 2**10),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=fields.count("head_dim", 2**9, default=hidden_size // num_heads),
        ffn_size=fields.count("intermediate_size", 2**20),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-12, 1e-2, default=1e-6),
        rope_theta=_rope_theta(config),
        max_position_embeddings=fields.count("max_position_embeddings", 2**24, default=DEFAULT_MAX_POSITIONS),
        tied_head=fields.flag("tie_word_embeddings", default=False),
        bos_token_id=_first(_token_ids(config.get("bos_token_id"), "bos_token_id", vocab_size)),
        eos_token_ids=tuple(
            dict.fromkeys(
                _token_ids(config.get("eos_token_id"), "eos_token_id", vocab_size)
                + _token_ids(generation.get("eos_token_id"), "eos_token_id", vocab_size, GENERATION_FILE)
            )
        ),
        quantization="none",
    )
    if num_heads % num_kv_heads:
        raise FileMalformed(CONFIG_FILE, f"{num_heads} attention heads cannot share {num_kv_heads} key-value heads")
    if spec.head_dim % 2:
        raise FileMalformed(CONFIG_FILE, f"head_dim {spec.head_dim} is odd, rotary pairs need an even one")
    return spec


def _read_object(folder: VerifiedFolder, name: str) -> dict[str, object]:
    return parse_json_object(bytes(folder.read(name, max_bytes=MAX_CONFIG_BYTES).view), name)


def _architecture(config: dict[str, object]) -> Architecture:
    named = config.get("architectures")
    known = get_args(Architecture)
    if not isinstance(named, list) or len(named) != 1 or named[0] not in known:
        raise ModelUnsupported(CONFIG_FILE, f"architectures is {named!r}, known are {', '.join(known)}")
    return cast("Architecture", named[0])


def _check_key(key: str, value: object) -> None:
    if key in READ_KEYS or key in HARMLESS_KEYS:
        return
    if key not in NEUTRAL_VALUES:
        raise ModelUnsupported(CONFIG_FILE, f"key {key!r} is unknown and could change what the model computes")
    if key == "rope_scaling" and value in DEFAULT_ROPE:
        return
    if not any(value == neutral and type(value) is type(neutral) for neutral in NEUTRAL_VALUES[key]):
        raise ModelUnsupported(CONFIG_FILE, f"{key} is {value!r}, which is not implemented")


def _rope_theta(config: dict[str, object]) -> float:
    """Read the rotary base from either of its two places, and refuse any scaling in the newer one."""
    if "rope_parameters" not in config:
        return _Fields(config).number("rope_theta", 1.0, 1e12, default=DEFAULT_ROPE_THETA)
    parameters = config["rope_parameters"]
    if not isinstance(parameters, dict) or "rope_theta" in config:
        raise FileMalformed(CONFIG_FILE, "rope_parameters must be an object, and rope_theta must not stand beside it")
    for key, value in parameters.items():
        neutral = {"rope_type": "default", "partial_rotary_factor": 1.0}
        if key != "rope_theta" and (key not in neutral or value != neutral[key]):
            raise ModelUnsupported(CONFIG_FILE, f"rope_parameters.{key} is {value!r}, which is not implemented")
    return _Fields(parameters).number("rope_theta", 1.0, 1e12, default=DEFAULT_ROPE_THETA)


def _token_ids(value: object, key: str, vocab_size: int, file: str = CONFIG_FILE) -> tuple[int, ...]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(token_id) is int and 0 <= token_id < vocab_size for token_id in values):
        raise FileMalformed(file, f"{key} is {value!r}, not token ids below {vocab_size}")
    return tuple(values)


def _first(token_ids: tuple[int, ...]) -> int | None:
    return token_ids[0] if token_ids else None


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed reading with bounds; JSON's true is no 1, and null is as good as absent."""

    values: dict[str, object]

    def count(self, key: str, most: int, default: int | None = None) -> int:
        value = self._present(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise FileMalformed(CONFIG_FILE, f"{key} is {value!r}, not a number from 1 to {most}")
        return value

    def number(self, key: str, least: float, most: float, default: float) -> float:
        value = self._present(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
            raise FileMalformed(CONFIG_FILE, f"{key} is {value!r}, not a number from {least} to {most}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._present(key, default)
        if not isinstance(value, bool):
            raise FileMalformed(CONFIG_FILE, f"{key} is {value!r}, not true or false")
        return value

    def _present(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise FileMalformed(CONFIG_FILE, f"key {key!r} is missing")
        return value
