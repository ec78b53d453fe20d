"""From a signed folder to logits: bounds, refusals and rows that keep to themselves."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from tiny_llama import ODD_SHAPES, TinyShape, engine_config, load_transformers, oracle_logits, save_tiny_llama

from engine.batch import Batch, ScheduledChunk
from engine.runner import load_runner
from engine.weights.errors import DigestMismatch, FileMalformed, LoadError, ModelDoesNotFit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one small model for the whole file; a test that changes it copies it first."""
    path = tmp_path_factory.mktemp("model")
    save_tiny_llama(path, TinyShape())
    return path


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Give a model that the test may damage."""
    save_tiny_llama(tmp_path, TinyShape(num_layers=1))
    return tmp_path


def chunk(name: str, token_ids: list[int], start: int, page_ids: list[int], *, samples: bool = True) -> ScheduledChunk:
    """Shorten the spelling."""
    return ScheduledChunk(name, tuple(token_ids), start, tuple(page_ids), samples)


def test_numbers_for_the_scheduler_come_from_model_and_configuration(folder: Path) -> None:
    """Pages by memory or by count; length by the tightest of three bounds."""
    page_bytes = 2 * 2 * 4 * 2 * 12 * 4  # K and V, layers, page size, kv heads, head_dim, fp32
    loaded = load_runner(engine_config(folder, num_pages=0, kv_memory_bytes=10 * page_bytes + 1))
    assert (loaded.num_pages, loaded.max_model_len, loaded.vocab_size) == (10, 40, 97)
    assert loaded.report.kv_bytes == 10 * page_bytes
    assert loaded.report.weight_bytes == (folder / "model.safetensors").stat().st_size
    loaded = load_runner(engine_config(folder, num_pages=1000))
    assert (loaded.num_pages, loaded.max_model_len) == (1000, 256)
    assert load_runner(engine_config(folder, num_pages=1000, max_model_len=99)).max_model_len == 99


def test_the_report_tells_the_phases_by_the_given_clock(folder: Path) -> None:
    """Time is an argument."""
    ticks = itertools.count(10, 7)
    report = load_runner(engine_config(folder), clock=lambda: float(next(ticks))).report
    assert (report.verify_s, report.build_s) == (7.0, 7.0)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"num_pages": 0, "kv_memory_bytes": 1535}, "1536"),
        ({"max_model_len": 257}, "256"),
        ({"num_pages": 5, "max_model_len": 21}, "20"),
        ({"page_size": 0}, "1"),
        ({"num_pages": -1}, "1"),
    ],
)
def test_bounds_that_cannot_hold_are_refused_with_the_number_that_would(
    folder: Path, changes: dict[str, int], number: str
) -> None:
    """The operator need not guess."""
    with pytest.raises(ModelDoesNotFit) as caught:
        load_runner(engine_config(folder, **changes))
    assert number in caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors"])
def test_a_changed_byte_in_any_file_stops_the_load_and_names_it(own_folder: Path, name: str) -> None:
    """The last byte of the file differs from what was signed."""
    config = engine_config(own_folder)
    data = bytearray((own_folder / name).read_bytes())
    data[-1] ^= 0x20
    (own_folder / name).write_bytes(data)
    with pytest.raises(DigestMismatch) as caught:
        load_runner(config)
    assert caught.value.file == name


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_stops_the_load_and_is_named(own_folder: Path, name: str) -> None:
    """Whether the manifest or the folder lacks it."""
    config = engine_config(own_folder)
    (own_folder / name).unlink()
    for given in (config, engine_config(own_folder)):
        with pytest.raises(LoadError) as caught:
            load_runner(given)
        assert caught.value.file == name


def test_files_that_the_engine_does_not_need_are_never_opened(own_folder: Path) -> None:
    """A Python file or an unreadable stray neither runs nor disturbs."""
    (own_folder / "modeling_evil.py").write_text("raise SystemExit('executed')")
    config = engine_config(own_folder)
    (own_folder / "modeling_evil.py").unlink()
    (own_folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert load_runner(config).vocab_size == 97


def test_a_config_that_disagrees_with_the_weights_stops_the_load(own_folder: Path) -> None:
    """Shapes are compared before a byte is copied."""
    text = (own_folder / "config.json").read_text()
    (own_folder / "config.json").write_text(text.replace('"intermediate_size": 76', '"intermediate_size": 75'))
    with pytest.raises(FileMalformed, match=r"gate_proj\.weight' has shape \[76, 48\], the config asks for \[75, 48\]"):
        load_runner(engine_config(own_folder))


def test_a_layer_too_many_in_the_weights_stops_the_load(own_folder: Path) -> None:
    """A model that is served with layers left out would answer nonsense in good faith."""
    save_tiny_llama(own_folder, TinyShape(num_layers=2))
    text = (own_folder / "config.json").read_text()
    (own_folder / "config.json").write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(FileMalformed, match=r"model\.layers\.1\..*has no place"):
        load_runner(engine_config(own_folder))


def test_shards_give_the_same_logits_as_one_file(tmp_path: Path) -> None:
    """Sharding is packaging: not a bit of the result changes."""
    shape = TinyShape()
    save_tiny_llama(tmp_path / "whole", shape)
    save_tiny_llama(tmp_path / "sharded", shape, max_shard_size="60KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    batch = Batch((chunk("a", [5, 9, 11, 3], 0, [2]),))
    whole = load_runner(engine_config(tmp_path / "whole")).runner.forward(batch)
    sharded = load_runner(engine_config(tmp_path / "sharded")).runner.forward(batch)
    assert torch.equal(whole, sharded)


STEPS = [
    [("a", 0, 7)],
    [("b", 0, 1), ("a", 7, 8)],
    [("a", 8, 19), ("b", 1, 2)],
    [("b", 2, 23), ("a", 19, 20)],
    [("b", 23, 24), ("a", 20, 21)],
    [("a", 21, 25), ("b", 24, 25)],
]
"""Two sequences of 25 tokens in uneven chunks, mixed with decodes: (sequence, start, end) of each chunk."""


def run_steps(folder: Path, dtype: str, tokens: dict[str, list[int]]) -> torch.Tensor:
    """Run the steps over scattered pages; give all sampled rows behind one another."""
    runner = load_runner(engine_config(folder, dtype=dtype)).runner
    pages = {"a": [9, 3, 4, 5, 20, 1, 7], "b": [30, 31, 32, 33, 34, 35, 36]}
    return torch.cat(
        [runner.forward(Batch(tuple(chunk(n, tokens[n][s:e], s, pages[n]) for n, s, e in step))) for step in STEPS]
    )


def oracle_steps(folder: Path, dtype: torch.dtype, tokens: dict[str, list[int]]) -> torch.Tensor:
    """Give transformers' logits for the same rows."""
    oracle = load_transformers(folder, dtype)
    logits = {name: oracle_logits(oracle, token_ids) for name, token_ids in tokens.items()}
    return torch.stack([logits[name][end - 1] for step in STEPS for name, _, end in step])


def two_prompts(vocab_size: int) -> dict[str, list[int]]:
    """Draw the two sequences."""
    generator = torch.Generator().manual_seed(4)
    return {name: torch.randint(vocab_size, (25,), generator=generator).tolist() for name in ("a", "b")}


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_chunks_in_company_score_as_transformers_scores(tmp_path: Path, name: str) -> None:
    """In fp32 every sampled row of every step is the oracle's."""
    save_tiny_llama(tmp_path, ODD_SHAPES[name])
    tokens = two_prompts(ODD_SHAPES[name].vocab_size)
    got = run_steps(tmp_path, "float32", tokens)
    torch.testing.assert_close(got, oracle_steps(tmp_path, torch.float32, tokens), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "oracle_dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
@pytest.mark.parametrize("name", ODD_SHAPES)
def test_short_floats_lose_no_more_than_transformers_loses(
    tmp_path: Path, name: str, dtype: str, oracle_dtype: torch.dtype
) -> None:
    """The distance from fp32 is of the size that transformers' own run in the same dtype has."""
    save_tiny_llama(tmp_path, ODD_SHAPES[name])
    tokens = two_prompts(ODD_SHAPES[name].vocab_size)
    truth = oracle_steps(tmp_path, torch.float32, tokens)
    loss = (run_steps(tmp_path, dtype, tokens) - truth).square().mean().sqrt()
    oracle_loss = (oracle_steps(tmp_path, oracle_dtype, tokens) - truth).square().mean().sqrt()
    assert loss < 1.5 * oracle_loss


def test_only_sampling_chunks_are_scored(folder: Path) -> None:
    """A chunk in the middle of a prompt yields no row; a step of such chunks alone yields none at all."""
    loaded = load_runner(engine_config(folder))
    forward = loaded.runner.forward
    middle = chunk("a", [1, 2, 3], 0, [0], samples=False)
    assert forward(Batch((middle,))).shape == (0, loaded.vocab_size)
    end = chunk("b", [4, 5], 0, [1])
    both = forward(Batch((middle, end)))
    torch.testing.assert_close(both, forward(Batch((end,))), atol=1e-5, rtol=1e-5)


def test_a_sequence_gone_nan_poisons_no_neighbour_even_through_reused_pages(folder: Path) -> None:
    """NaN left in a page's tail by a failed sequence is not read by the next owner of that page."""
    loaded = load_runner(engine_config(folder))
    victim, other = chunk("v", [7], 2, [3]), chunk("o", [8], 5, [4, 5])
    prompts = Batch((chunk("v", [1, 2], 0, [3], samples=False), chunk("o", [1, 2, 3, 4, 5], 0, [4, 5], samples=False)))
    loaded.runner.forward(prompts)
    clean = loaded.runner.forward(Batch((victim, other)))
    cache = loaded.runner._cache
    for memory in (*cache.keys, *cache.values):
        memory[3, 3:] = float("nan")
        memory[5, 2:] = float("nan")
    assert torch.equal(loaded.runner.forward(Batch((victim, other))), clean)


def test_the_frozen_result_cannot_be_changed(folder: Path) -> None:
    """What was loaded is a value."""
    loaded = load_runner(engine_config(folder))
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.num_pages = 3  # type: ignore[misc]
