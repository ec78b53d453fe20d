"""Weights move once, completely, and from exactly the files that were signed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_llama import digests_of

from engine.weights.errors import DigestMismatch, FileMalformed, FileRefused
from engine.weights.stored_tensors import StoredTensors, load_safetensors
from engine.weights.verified_folder import VerifiedFolder

TENSORS = {
    "f32": torch.arange(15.0).view(3, 5),
    "bf16": torch.linspace(-2, 2, 7).bfloat16(),
    "f16": torch.linspace(-1, 1, 3).half(),
    "large": torch.arange(8192.0),
}


def opened(folder: Path) -> StoredTensors:
    """Open a folder as it lies now."""
    return load_safetensors(VerifiedFolder(str(folder), digests_of(folder)))


def save_sharded(folder: Path, shards: dict[str, dict[str, torch.Tensor]]) -> None:
    """Write shards and their index."""
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_arrive_as_stored_in_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    """A move converts exactly as torch converts."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    tensors = opened(tmp_path)
    for name, stored in TENSORS.items():
        destination = torch.full(stored.shape, float("nan"), dtype=dtype)
        tensors.move_into(name, destination)
        assert torch.equal(destination, stored.to(dtype))
    tensors.finish()


def test_unaligned_tensors_arrive_whole(tmp_path: Path) -> None:
    """The format promises no alignment: an odd header length shifts every float off its border."""
    values = torch.arange(9, dtype=torch.float32)
    header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    header += b" " * (1 - len(header) % 4)
    assert (8 + len(header)) % 4
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values.numpy().tobytes())
    destination = torch.full((9,), float("nan"))
    opened(tmp_path).move_into("x", destination)
    assert torch.equal(destination, values)


def test_a_moved_tensor_is_gone_and_its_memory_with_it(tmp_path: Path) -> None:
    """The file's pages read as zeros after the move, and the name cannot be asked for again."""
    save_file({"w": torch.ones(1 << 16)}, tmp_path / "model.safetensors")
    folder = VerifiedFolder(str(tmp_path), digests_of(tmp_path))
    file = folder.read("model.safetensors")
    tensors = StoredTensors({file.name: file})
    tensors.move_into("w", torch.empty(1 << 16))
    assert bytes(file.view[8192 : 8192 + 4096]) == bytes(4096)
    with pytest.raises(FileMalformed, match="no weight file holds tensor 'w'"):
        tensors.move_into("w", torch.empty(1 << 16))


def test_a_tensor_nobody_asked_for_stops_the_load(tmp_path: Path) -> None:
    """A left-over means that the files hold another model than the one being served."""
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "model.safetensors")
    tensors = opened(tmp_path)
    tensors.move_into("a", torch.empty(2))
    with pytest.raises(FileMalformed, match="'b' has no place"):
        tensors.finish()
    tensors.drop("b")
    tensors.finish()


@pytest.mark.parametrize(
    ("stored", "message"),
    [(torch.ones(3, 2), r"shape \[3, 2\]"), (torch.ones(2, 3, dtype=torch.int32), "dtype I32")],
)
def test_a_tensor_of_another_kind_stops_the_load(tmp_path: Path, stored: torch.Tensor, message: str) -> None:
    """Shape and dtype are compared, never coerced."""
    save_file({"a": stored}, tmp_path / "model.safetensors")
    with pytest.raises(FileMalformed, match=message):
        opened(tmp_path).move_into("a", torch.empty(2, 3))


def test_shards_read_as_one_model(tmp_path: Path) -> None:
    """The index says which file holds what, and the files agree."""
    save_sharded(tmp_path, {"m-1.safetensors": {"a": torch.ones(2)}, "m-2.safetensors": {"b": torch.zeros(3)}})
    tensors = opened(tmp_path)
    assert sorted(tensors.names()) == ["a", "b"]
    assert tensors.file_of("b") == "m-2.safetensors"


def test_an_index_that_misplaces_a_tensor_is_refused(tmp_path: Path) -> None:
    """Index and shards must tell the same story."""
    save_sharded(tmp_path, {"m-1.safetensors": {"a": torch.ones(2)}, "m-2.safetensors": {"b": torch.zeros(3)}})
    index = {"weight_map": {"a": "m-2.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileMalformed, match=r"'a' is placed in 'm-2\.safetensors' but lies in 'm-1"):
        opened(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    """Which of the two would be served must not depend on an order."""
    save_sharded(tmp_path, {"m-1.safetensors": {"a": torch.ones(2)}, "m-2.safetensors": {"a": torch.zeros(2)}})
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})
    )
    with pytest.raises(FileMalformed, match="another file as well"):
        opened(tmp_path)


@pytest.mark.parametrize("shard", ["../m.safetensors", "/m.safetensors", "m.bin", 3])
def test_an_index_cannot_lead_out_of_the_signed_files(tmp_path: Path, shard: object) -> None:
    """A shard is a safetensors file that the manifest names, or the load stops."""
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises((FileRefused, FileMalformed)):
        opened(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map_is_refused(tmp_path: Path, index: object) -> None:
    """An empty index would be an empty model."""
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileMalformed, match="weight_map"):
        opened(tmp_path)


def test_index_and_single_file_together_are_refused(tmp_path: Path) -> None:
    """Two models in one folder: nothing says which one was approved."""
    save_sharded(tmp_path, {"m-1.safetensors": {"a": torch.ones(2)}})
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(FileRefused, match="beside"):
        opened(tmp_path)


def test_a_changed_shard_is_named_before_any_parse(tmp_path: Path) -> None:
    """Even a shard whose header became nonsense is reported as changed, not as malformed."""
    save_sharded(tmp_path, {"m-1.safetensors": {"a": torch.ones(2)}, "m-2.safetensors": {"b": torch.zeros(3)}})
    digests = digests_of(tmp_path)
    (tmp_path / "m-2.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DigestMismatch, match=r"m-2\.safetensors"):
        load_safetensors(VerifiedFolder(str(tmp_path), digests))


def test_a_folder_without_weights_says_what_it_needs(tmp_path: Path) -> None:
    """The missing file is named."""
    with pytest.raises(FileRefused, match=r"model\.safetensors"):
        opened(tmp_path)
