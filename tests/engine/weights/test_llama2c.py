"""The converter against models that it must not change, and a tokenizer written the long way."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llama import TinyShape, load_transformers, oracle_logits, save_tiny_llama
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from engine.weights import llama2c
from engine.weights.errors import FileMalformed

SHAPE = TinyShape(hidden_size=24, num_heads=4, num_kv_heads=2, num_layers=2, vocab_size=300, ffn_size=20)


def interleaved(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Reorder half-split rotary rows to interleaved ones: the inverse of what the converter does."""
    rows, columns = weight.shape
    return weight.view(num_heads, 2, rows // num_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def checkpoint_of(model: LlamaForCausalLM, *, tied: bool) -> bytes:
    """Write a transformers Llama the way llama2.c's exporter does."""
    state = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    vocab = SHAPE.vocab_size if tied else -SHAPE.vocab_size
    header = (SHAPE.hidden_size, SHAPE.ffn_size, 2, SHAPE.num_heads, SHAPE.num_kv_heads, vocab, SHAPE.max_positions)
    parts = [state["embed_tokens.weight"]]
    for name in (
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.gate_proj",
        "mlp.down_proj",
        "mlp.up_proj",
    ):
        for layer in range(2):
            weight = state[f"layers.{layer}.{name}.weight"]
            if name.endswith("q_proj"):
                weight = interleaved(weight, SHAPE.num_heads)
            if name.endswith("k_proj"):
                weight = interleaved(weight, SHAPE.num_kv_heads)
            parts.append(weight)
    parts += [state["norm.weight"], torch.full((SHAPE.max_positions, 6), 7.0)]
    if not tied:
        parts.append(state["lm_head.weight"])
    return struct.pack("<7i", *header) + b"".join(part.numpy().astype("<f4").tobytes() for part in parts)


def vocabulary(texts: list[tuple[str, float]]) -> bytes:
    """Write a llama2.c tokenizer of 300 pieces: specials, bytes, then texts, then fillers."""
    pieces = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0)]
    pieces += [(f"<0x{value:02X}>".encode(), 0.0) for value in range(256)]
    pieces += [(text.encode(), score) for text, score in texts]
    pieces += [(f"~{index}".encode(), -1e6 - index) for index in range(SHAPE.vocab_size - len(pieces))]
    return struct.pack("<i", 9) + b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in pieces)


@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_model_scores_as_the_one_it_was_made_from(tmp_path: Path, tied: bool) -> None:
    """Out to llama2.c's format and back: the same logits from transformers, rotary order included."""
    shape = TinyShape(**{name: getattr(SHAPE, name) for name in TinyShape.__dataclass_fields__} | {"tied": tied})
    save_tiny_llama(tmp_path / "original", shape)
    original = load_transformers(tmp_path / "original")
    original.config.rms_norm_eps = 1e-5
    for module in original.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5  # the legacy format knows no other
    (tmp_path / "m.bin").write_bytes(checkpoint_of(original, tied=tied))
    (tmp_path / "t.bin").write_bytes(vocabulary([]))
    llama2c.convert(tmp_path / "m.bin", tmp_path / "t.bin", tmp_path / "converted")
    converted = load_transformers(tmp_path / "converted")
    token_ids = [1, 5, 299, 17, 17, 80]
    torch.testing.assert_close(oracle_logits(converted, token_ids), oracle_logits(original, token_ids))


def test_conversion_is_reproducible(tmp_path: Path) -> None:
    """The same input gives the same bytes, so that a signature over the result can be checked by redoing it."""
    save_tiny_llama(tmp_path / "original", SHAPE)
    (tmp_path / "m.bin").write_bytes(checkpoint_of(load_transformers(tmp_path / "original"), tied=True))
    (tmp_path / "t.bin").write_bytes(vocabulary([("ab", -1.0)]))
    for name in ("one", "two"):
        llama2c.convert(tmp_path / "m.bin", tmp_path / "t.bin", tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def naive_encode(pieces: list[tuple[bytes, float]], text: str) -> list[int]:
    """Encode as llama2.c does: characters or their bytes, then the best-scored neighbours merge, one pair at a time."""
    id_of = {piece: index for index, (piece, _) in enumerate(pieces)}
    token_ids = [llama2c.BOS_ID]
    for character in " " + text:
        data = character.encode()
        token_ids += [id_of[data]] if data in id_of else [byte + llama2c.FIRST_BYTE_ID for byte in data]
    while True:
        best = None
        for place in range(len(token_ids) - 1):
            merged = id_of.get(pieces[token_ids[place]][0] + pieces[token_ids[place + 1]][0])
            if merged is not None and (best is None or pieces[merged][1] > best[0]):
                best = (pieces[merged][1], place, merged)
        if best is None:
            return token_ids
        token_ids[best[1] : best[1] + 2] = [best[2]]


TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    'She said: "Don\'t!" and ran 3 times.\nThe end',
    "Zoë saw 猫 and 🐈, twice  over",
    " leading space",
    "aaaa bbbb the the there",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_real_tokenizer_encodes_as_llama2c_does_and_decodes_back(shared: Path, text: str) -> None:
    """The 512-piece vocabulary, against the algorithm written the long way."""
    data = (shared / "models" / "stories260k" / "tok512.bin").read_bytes()
    pieces = llama2c.read_vocabulary(data, "tok512.bin", 512)
    tokenizer = llama2c.build_tokenizer(pieces)
    token_ids = tokenizer.encode(text).ids
    assert token_ids == naive_encode(pieces, text)
    assert tokenizer.decode(token_ids) == text


def test_merges_follow_scores_and_unknown_characters_fall_back_to_bytes(tmp_path: Path) -> None:
    """A small vocabulary of our own, after a round through the file."""
    texts = [(" ", -9.0), ("a", -8.0), ("b", -7.0), ("ab", -2.0), ("ba", -1.0), ("aba", -0.5), (" a", -3.0)]
    pieces = llama2c.read_vocabulary(vocabulary(texts), "t.bin", 300)
    llama2c.build_tokenizer(pieces).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("abab", "bab aé", "ba ba", "</s>ab"):
        token_ids = tokenizer.encode(text, add_special_tokens=True).ids
        if "</s>" not in text:
            assert token_ids == naive_encode(pieces, text)
            assert tokenizer.decode(token_ids) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (bytes(28), "describes no model"),
        (struct.pack("<7i", 8, 8, 1, 2, 2, 9, 9) + b"abc", "no whole numbers"),
        (struct.pack("<7i", 8, 8, 1, 3, 1, 9, 9), "describes no model"),
        (struct.pack("<7i", 8, 8, 1, 2, 2, 2**30, 9), "describes no model"),
        (struct.pack("<7i", 8, 8, 1, 2, 2, -(2**31), 9), "describes no model"),
        (struct.pack("<7i", 8, 8, 1, 2, 2, 9, 9), "it holds 0"),
        (struct.pack("<7i", 8, 8, 1, 2, 2, 9, 9) + np.zeros(999, "<f4").tobytes(), "it holds 999"),
    ],
)
def test_a_checkpoint_that_lies_is_refused(data: bytes, message: str) -> None:
    """Sizes are judged before anything is made of them."""
    with pytest.raises(FileMalformed, match=message):
        llama2c.read_checkpoint(data, "m.bin")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds 0 pieces"),
        (struct.pack("<ifi", 9, 0.0, 3) + b"ab", "claims 3 bytes"),
        (struct.pack("<ifi", 9, 0.0, -1), "claims -1 bytes"),
        (struct.pack("<if", 9, 0.0), "ends within piece 0"),
        (vocabulary([("ab", 0.0), ("ab", 0.0)]), "the same"),
        (vocabulary([("ab", 0.0)]).replace(b"ab", b"\xff\xff"), "not UTF-8"),
    ],
)
def test_a_vocabulary_that_lies_is_refused(data: bytes, message: str) -> None:
    """Lengths are judged against what is there."""
    with pytest.raises(FileMalformed, match=message):
        llama2c.read_vocabulary(data, "t.bin", 300)


def test_the_tool_says_what_it_wants_and_what_went_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call is 2, a bad file is 1 with its name, and nothing is written."""
    assert llama2c.main([]) == 2
    assert "usage" in capsys.readouterr().err
    (tmp_path / "m.bin").write_bytes(b"short")
    assert llama2c.main([str(tmp_path / "m.bin"), str(tmp_path / "t.bin"), str(tmp_path / "out")]) == 1
    assert "m.bin: 5 bytes are too few" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
