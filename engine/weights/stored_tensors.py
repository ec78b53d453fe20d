"""Tensors of a model folder, moved one by one from verified memory into the model.

Invariants:
1. A tensor is moved at most once; after the move its bytes are given back, so a load peaks at one model plus the
   tensor under way.
2. A tensor nobody asked for is an error, never ignored: `finish` says which.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.weights.errors import FileMalformed, FileRefused
from engine.weights.safetensors_header import TensorEntry, read_safetensors_header
from engine.weights.strict_json import parse_json_object
from engine.weights.verified_folder import VerifiedFile, VerifiedFolder

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 * 2**20

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}

FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    file: VerifiedFile
    entry: TensorEntry


class StoredTensors:
    """The tensors that wait to be moved into a model.  Owns the file memory until then; one thread."""

    def __init__(self, files: dict[str, VerifiedFile]) -> None:
        self._waiting: dict[str, _StoredTensor] = {}
        self.num_bytes = sum(file.size_bytes for file in files.values())
        for file in files.values():
            for entry in read_safetensors_header(file.view, file.name):
                if entry.name in self._waiting:
                    raise FileMalformed(file.name, f"tensor {entry.name!r} stands in another file as well")
                self._waiting[entry.name] = _StoredTensor(file, entry)

    def file_of(self, name: str) -> str:
        """Name the file in which a waiting tensor lies."""
        return self._waiting[name].file.name

    def names(self) -> tuple[str, ...]:
        """Name the tensors that wait."""
        return tuple(self._waiting)

    def move_into(self, name: str, destination: Tensor) -> None:
        """Copy one floating tensor into `destination`, converting its dtype, and let its bytes go.

        Raises:
            FileMalformed: the tensor is absent, not floating, or of another shape.
        """
        stored = self._waiting.get(name)
        if stored is None:
            raise FileMalformed("", f"no weight file holds tensor {name!r}")
        entry, file = stored.entry, stored.file
        dtype = TORCH_DTYPES[entry.dtype]
        if dtype not in FLOATING:
            raise FileMalformed(file.name, f"tensor {name!r} has dtype {entry.dtype}, a floating one is needed")
        if entry.shape != tuple(destination.shape):
            raise FileMalformed(
                file.name,
                f"tensor {name!r} has shape {list(entry.shape)}, the config asks for {list(destination.shape)}",
            )
        if entry.end > entry.start:
            destination.copy_(_typed_view(file, entry, dtype))
        del self._waiting[name]
        file.unsafe_discard(entry.start, entry.end)

    def drop(self, name: str) -> None:
        """Forget a tensor that is known to be derivable; only for names that the architecture lists as such."""
        stored = self._waiting.pop(name)
        stored.file.unsafe_discard(stored.entry.start, stored.entry.end)

    def finish(self) -> None:
        """Say that the model is built.

        Raises:
            FileMalformed: a tensor was left over, so the files hold another model than the config describes.
        """
        for name, stored in self._waiting.items():
            raise FileMalformed(
                stored.file.name, f"tensor {name!r} has no place in the model that config.json describes"
            )


def load_safetensors(folder: VerifiedFolder) -> StoredTensors:
    """Verify and open the weights of a folder: one file, or the shards that its index names.

    Raises:
        LoadError: a file is refused or malformed.
    """
    if INDEX_FILE in folder and SINGLE_FILE in folder:
        raise FileRefused(INDEX_FILE, f"it stands beside {SINGLE_FILE}", "keep one of the two and sign again")
    if INDEX_FILE not in folder:
        return StoredTensors({SINGLE_FILE: folder.read(SINGLE_FILE)})
    shard_of = _read_index(folder)
    tensors = StoredTensors(folder.read_all(sorted(set(shard_of.values()))))
    _check_index(shard_of, tensors)
    return tensors


def _read_index(folder: VerifiedFolder) -> dict[str, str]:
    index = parse_json_object(bytes(folder.read(INDEX_FILE, max_bytes=MAX_INDEX_BYTES).view), INDEX_FILE)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FileMalformed(INDEX_FILE, "it has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise FileMalformed(INDEX_FILE, f"tensor {name!r} is not placed in a safetensors file")
    return weight_map


def _check_index(shard_of: dict[str, str], tensors: StoredTensors) -> None:
    found = {name: tensors.file_of(name) for name in tensors.names()}
    if found != shard_of:
        name = min(name for name in found.keys() | shard_of.keys() if found.get(name) != shard_of.get(name))
        raise FileMalformed(
            INDEX_FILE, f"tensor {name!r} is placed in {shard_of.get(name)!r} but lies in {found.get(name)!r}"
        )


def _typed_view(file: VerifiedFile, entry: TensorEntry, dtype: torch.dtype) -> Tensor:
    data = torch.frombuffer(file.view, dtype=torch.uint8, offset=entry.start, count=entry.end - entry.start)
    if data.data_ptr() % dtype.itemsize:
        data = data.clone()  # the format does not promise alignment, the processor wants it
    return data.view(dtype).view(entry.shape)
