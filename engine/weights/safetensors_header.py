"""The safetensors header: bytes in, table of tensors out, every bound checked before anything is allocated.

Invariants of a table that this module returns:
1. The tensors lie one behind another, from the first data byte to the last: no hole, no overlap, nothing outside.
2. Each one's byte count is its shape times its dtype's width.
3. No name twice, no key but the format's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from engine.weights.errors import FileMalformed
from engine.weights.strict_json import parse_json_object

MAX_HEADER_BYTES = 100 * 10**6
LENGTH_BYTES = 8
MAX_DIMENSIONS = 8

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
    "I64": 8,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies in the file."""

    name: str
    dtype: str
    """Key of `DTYPE_BYTES`."""
    shape: tuple[int, ...]
    start: int
    """First byte, from the beginning of the file."""
    end: int


def read_safetensors_header(view: memoryview, file: str) -> tuple[TensorEntry, ...]:
    """Read the table of tensors, in the order in which they lie.

    Raises:
        FileMalformed: any invariant of the module does not hold.
    """
    if len(view) < LENGTH_BYTES:
        raise FileMalformed(file, f"{len(view)} bytes are too few for a safetensors file")
    header_len = int.from_bytes(view[:LENGTH_BYTES], "little")
    data_start = LENGTH_BYTES + header_len
    if header_len > MAX_HEADER_BYTES or data_start > len(view):
        raise FileMalformed(file, f"its header claims {header_len} bytes of a file of {len(view)}")
    header = bytes(view[LENGTH_BYTES:data_start])
    if not header.startswith(b"{"):
        raise FileMalformed(file, "its header does not begin with an object")
    table = parse_json_object(header, file)
    _check_metadata(table.pop("__metadata__", {}), file)
    entries = sorted(
        (_entry(name, fields, data_start, file) for name, fields in table.items()),
        key=lambda entry: (entry.start, entry.end),
    )
    _check_cover(entries, data_start, len(view), file)
    return tuple(entries)


def _check_metadata(metadata: object, file: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileMalformed(file, "its __metadata__ is not a map of strings")


def _entry(name: str, fields: object, data_start: int, file: str) -> TensorEntry:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise FileMalformed(file, f"tensor {name!r} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise FileMalformed(file, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise FileMalformed(file, f"tensor {name!r} has no proper shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - begin and end
        raise FileMalformed(file, f"tensor {name!r} has no proper data_offsets")
    size = offsets[1] - offsets[0]
    if prod(shape) * DTYPE_BYTES[dtype] != size:
        raise FileMalformed(file, f"tensor {name!r} of shape {shape} and dtype {dtype} cannot have {size} bytes")
    return TensorEntry(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_counts(values: object) -> bool:
    """Say whether these are non-negative 64-bit integers; JSON's true is none, though Python thinks so."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(entries: list[TensorEntry], data_start: int, data_end: int, file: str) -> None:
    reached = data_start
    for entry in entries:
        if entry.start != reached:
            kind = "overlaps the one before it" if entry.start < reached else "leaves a hole before it"
            raise FileMalformed(file, f"tensor {entry.name!r} {kind}")
        reached = entry.end
    if reached != data_end:
        raise FileMalformed(file, f"its tensors end at byte {reached}, the file at byte {data_end}")
