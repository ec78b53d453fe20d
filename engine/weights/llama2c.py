"""Convert a llama2.c checkpoint (legacy format) and its tokenizer into a Llama folder that the engine loads.

    python -m engine.weights.llama2c STORIES.bin TOK512.bin OUT_DIR

Little-endian: seven int32 (dim, ffn, layers, heads, kv heads, vocabulary or its negative when the head is not tied,
longest sequence), then fp32 tensors stacked over layers.  The same input gives the same bytes.  A tool for an
operator's own files, run before signing; the engine never calls it.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from engine.weights.errors import FileMalformed

HEADER = struct.Struct("<7i")
MAX_SIZE = 2**20
"""No size of such a model is larger; beyond it the file is no llama2.c checkpoint."""

UNKNOWN_ID, BOS_ID, EOS_ID = 0, 1, 2
SPECIAL_TOKENS = {UNKNOWN_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}
FIRST_BYTE_ID = 3
NUM_BYTES = 256
WORD_START = "\u2581"
"""How SentencePiece writes a space."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Llama2cShape:
    """The checkpoint's header."""

    dim: int
    ffn: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    max_len: int
    tied: bool

    @property
    def head_dim(self) -> int:
        """Elements per head."""
        return self.dim // self.num_heads


def convert(checkpoint: Path, vocabulary: Path, out_dir: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json into a folder.

    Raises:
        FileMalformed: a file is not what it should be.
    """
    shape, tensors = read_checkpoint(checkpoint.read_bytes(), checkpoint.name)
    pieces = read_vocabulary(vocabulary.read_bytes(), vocabulary.name, shape.vocab_size)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out_dir / "model.safetensors", metadata={"format": "pt"})
    _write_json(out_dir / "config.json", _config(shape))
    build_tokenizer(pieces).save(str(out_dir / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL_TOKENS[BOS_ID],
        "eos_token": SPECIAL_TOKENS[EOS_ID],
        "unk_token": SPECIAL_TOKENS[UNKNOWN_ID],
        "add_bos_token": True,
    }
    _write_json(out_dir / "tokenizer_config.json", tokenizer_config)


def read_checkpoint(data: bytes, file: str) -> tuple[Llama2cShape, dict[str, Array]]:
    """Parse a checkpoint into tensors under the names of Hugging Face's Llama."""
    shape = _shape(data, file)
    if len(data) % 4:
        raise FileMalformed(file, f"its {len(data)} bytes are no whole numbers")
    values = np.frombuffer(data, dtype="<f4", offset=HEADER.size)
    layers, dim, ffn, kv_dim = shape.num_layers, shape.dim, shape.ffn, shape.num_kv_heads * shape.head_dim
    rotary = shape.max_len * shape.head_dim // 2
    layout: dict[str, tuple[int, ...]] = {
        "embedding": (shape.vocab_size, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, kv_dim, dim),
        "self_attn.v_proj": (layers, kv_dim, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, ffn, dim),
        "mlp.down_proj": (layers, dim, ffn),
        "mlp.up_proj": (layers, ffn, dim),
        "norm": (dim,),
        "rotary_cos": (rotary,),
        "rotary_sin": (rotary,),
    }
    if not shape.tied:
        layout["head"] = (shape.vocab_size, dim)
    sizes = [int(np.prod(dims)) for dims in layout.values()]
    if sum(sizes) != len(values):
        raise FileMalformed(file, f"its header asks for {sum(sizes)} numbers, it holds {len(values)}")
    parts = np.split(values, np.cumsum(sizes)[:-1])
    stacked = {name: part.reshape(dims) for (name, dims), part in zip(layout.items(), parts, strict=True)}
    stacked["self_attn.q_proj"] = _half_split(stacked["self_attn.q_proj"], shape.num_heads)
    stacked["self_attn.k_proj"] = _half_split(stacked["self_attn.k_proj"], shape.num_kv_heads)

    tensors = {"model.embed_tokens.weight": stacked.pop("embedding"), "model.norm.weight": stacked.pop("norm")}
    del stacked["rotary_cos"], stacked["rotary_sin"]
    if not shape.tied:
        tensors["lm_head.weight"] = stacked.pop("head")
    for name, stack in stacked.items():
        for layer, weight in enumerate(stack):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ascontiguousarray(weight)
    return shape, tensors


def read_vocabulary(data: bytes, file: str, vocab_size: int) -> list[tuple[bytes, float]]:
    """Parse a llama2.c tokenizer: int32 longest piece, then float32 score, int32 length and bytes of every piece."""
    pieces: list[tuple[bytes, float]] = []
    offset = 4
    record = struct.Struct("<fi")
    while offset < len(data):
        if offset + record.size > len(data):
            raise FileMalformed(file, f"it ends within piece {len(pieces)}")
        score, length = record.unpack_from(data, offset)
        offset += record.size
        if not 0 <= length <= len(data) - offset:
            raise FileMalformed(file, f"piece {len(pieces)} claims {length} bytes")
        pieces.append((data[offset : offset + length], score))
        offset += length
    if len(pieces) != vocab_size:
        raise FileMalformed(file, f"it holds {len(pieces)} pieces, the checkpoint {vocab_size}")
    try:
        names = {_piece_name(index, piece) for index, (piece, _) in enumerate(pieces)}
    except UnicodeDecodeError as error:
        raise FileMalformed(file, "a piece is not UTF-8") from error
    if len(names) != len(pieces):
        raise FileMalformed(file, "two of its pieces are the same")
    return pieces


def build_tokenizer(pieces: list[tuple[bytes, float]]) -> Tokenizer:
    """Make a BPE tokenizer with byte fallback whose merges are ordered by the pieces' scores."""
    names = [_piece_name(index, piece) for index, (piece, _) in enumerate(pieces)]
    vocab = {name: index for index, name in enumerate(names)}
    first_text = FIRST_BYTE_ID + NUM_BYTES
    by_score = sorted(range(first_text, len(pieces)), key=lambda index: (-pieces[index][1], index))
    merges = [
        (names[index][:cut], names[index][cut:])
        for index in by_score
        for cut in range(1, len(names[index]))
        if names[index][:cut] in vocab and names[index][cut:] in vocab
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=SPECIAL_TOKENS[UNKNOWN_ID], fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS.values()]
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(WORD_START), normalizers.Replace(" ", WORD_START)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS_ID)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(WORD_START, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def main(arguments: list[str]) -> int:
    """Run the tool."""
    if len(arguments) != 3:  # noqa: PLR2004 - the three paths of the usage line
        sys.stderr.write("usage: python -m engine.weights.llama2c CHECKPOINT.bin TOKENIZER.bin OUT_DIR\n")
        return 2
    checkpoint, vocabulary, out_dir = (Path(argument) for argument in arguments)
    try:
        convert(checkpoint, vocabulary, out_dir)
    except (FileMalformed, OSError) as error:
        sys.stderr.write(f"not converted: {error}\n")
        return 1
    return 0


def _shape(data: bytes, file: str) -> Llama2cShape:
    if len(data) < HEADER.size:
        raise FileMalformed(file, f"{len(data)} bytes are too few for a checkpoint")
    dim, ffn, num_layers, num_heads, num_kv_heads, vocab, max_len = HEADER.unpack_from(data)
    sizes = (dim, ffn, num_layers, num_heads, num_kv_heads, abs(vocab), max_len)
    if not all(1 <= size <= MAX_SIZE for size in sizes) or dim % num_heads or num_heads % num_kv_heads:
        raise FileMalformed(file, f"its header {sizes} describes no model")
    return Llama2cShape(dim, ffn, num_layers, num_heads, num_kv_heads, abs(vocab), max_len, tied=vocab > 0)


def _half_split(weights: Array, num_heads: int) -> Array:
    """Reorder each head's rows from interleaved rotary pairs (2i, 2i + 1) to half-split ones (i, i + head_dim / 2)."""
    layers, rows, columns = weights.shape
    pairs = weights.reshape(layers, num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(2, 3).reshape(layers, rows, columns)


def _piece_name(index: int, piece: bytes) -> str:
    if index in SPECIAL_TOKENS:
        return SPECIAL_TOKENS[index]
    if FIRST_BYTE_ID <= index < FIRST_BYTE_ID + NUM_BYTES:
        return f"<0x{index - FIRST_BYTE_ID:02X}>"
    return piece.decode("utf-8").replace(" ", WORD_START)


def _config(shape: Llama2cShape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": BOS_ID,
        # Documents were told apart by BOS, so the model ends a story with either.
        "eos_token_id": [EOS_ID, BOS_ID],
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.max_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.num_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "float32",
        "vocab_size": shape.vocab_size,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
