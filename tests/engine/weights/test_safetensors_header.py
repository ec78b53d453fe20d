"""The header reader against liars: every lie is a FileMalformed, nothing else ever comes out."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from engine.weights.errors import FileMalformed
from engine.weights.safetensors_header import DTYPE_BYTES, MAX_HEADER_BYTES, read_safetensors_header

SOUND = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
    "empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [34, 34]},
    "scalar": {"dtype": "U8", "shape": [], "data_offsets": [34, 35]},
}


def file_of(header: object, data_len: int = 35) -> memoryview:
    """Make a file of a header and zeros."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(struct.pack("<Q", len(text)) + text + bytes(data_len))


def test_a_sound_header_is_read_in_order_of_place() -> None:
    """Starts and ends count from the beginning of the file."""
    view = file_of({"__metadata__": {"format": "pt"}, **dict(reversed(SOUND.items()))})
    entries = read_safetensors_header(view, "f")
    assert [entry.name for entry in entries] == ["a", "b", "empty", "scalar"]
    assert entries[-1].end == len(view)
    assert entries[0].shape == (2, 3)
    assert entries[1].dtype == "BF16"


def test_it_reads_what_the_safetensors_library_writes() -> None:
    """The library's own writer is the oracle for names, shapes and places."""
    tensors = {"x": torch.arange(6.0).view(2, 3), "y.z": torch.ones(3, dtype=torch.bfloat16), "n": torch.tensor(7)}
    view = memoryview(save(tensors, {"k": "v"}))
    entries = {entry.name: entry for entry in read_safetensors_header(view, "f")}
    assert entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        entry = entries[name]
        assert entry.shape == tuple(tensor.shape)
        assert bytes(view[entry.start : entry.end]) == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def changed(name: str, **fields: object) -> dict[str, object]:
    """Make the sound header with one tensor changed."""
    return {**SOUND, name: {**SOUND[name], **fields}}


ATTACKS: dict[str, tuple[object, str]] = {
    "not an object": ([], "does not begin with an object"),
    "leading space": (b" {}", "does not begin with an object"),
    "no json": (b"{nonsense", "not strict JSON"),
    "not utf-8": (b'{"\xff": 1}', "not strict JSON"),
    "trailing text": (json.dumps(SOUND).encode() + b"x", "not strict JSON"),
    "nan": (b'{"a": NaN}', "NaN"),
    "huge integer": (b'{"a": ' + b"9" * 5000 + b"}", "not strict JSON"),
    "deep nesting": (b'{"a":' * 100_000, "not strict JSON"),
    "name twice": (b'{"a": 1, "a": 2}', "twice"),
    "field twice": (b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', "twice"),
    "metadata of numbers": ({**SOUND, "__metadata__": {"a": 1}}, "__metadata__"),
    "metadata no object": ({**SOUND, "__metadata__": "x"}, "__metadata__"),
    "extra field": (changed("a", more=1), "nothing else"),
    "missing field": ({"a": {"dtype": "F32", "shape": []}}, "must have"),
    "fields no object": ({"a": 3}, "must have"),
    "unknown dtype": (changed("a", dtype="F4"), "unknown dtype"),
    "dtype no string": (changed("a", dtype=["F32"]), "unknown dtype"),
    "negative size": (changed("a", shape=[-2, -3]), "no proper shape"),
    "true as size": (changed("scalar", shape=[True]), "no proper shape"),
    "float size": (changed("a", shape=[2.0, 3]), "no proper shape"),
    "overflowing size": (changed("a", shape=[2**62, 4]), "cannot have 24 bytes"),
    "size beyond 64 bit": (changed("a", shape=[2**63]), "no proper shape"),
    "too many dimensions": (changed("scalar", shape=[1] * 9), "no proper shape"),
    "size that lies": (changed("a", shape=[2, 4]), "cannot have 24 bytes"),
    "dtype that lies": (changed("a", dtype="F16"), "cannot have 24 bytes"),
    "reversed offsets": (changed("a", data_offsets=[24, 0]), "no proper data_offsets"),
    "one offset": (changed("a", data_offsets=[0]), "no proper data_offsets"),
    "offset beyond the file": (changed("scalar", shape=[101], data_offsets=[34, 135]), "the file at byte"),
    "hole": (changed("b", data_offsets=[25, 35]), "hole"),
    "overlap": (changed("b", data_offsets=[14, 24]), "overlaps"),
    "same bytes twice": ({**SOUND, "c": SOUND["a"]}, "overlaps"),
    "bytes after the last": ({"a": SOUND["a"]}, "the file at byte"),
    "no tensor for the bytes": ({}, "the file at byte"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_lying_header_is_refused_by_name(attack: str) -> None:
    """Each lie is named, before anything is allocated by it."""
    header, message = ATTACKS[attack]
    with pytest.raises(FileMalformed, match=message) as caught:
        read_safetensors_header(file_of(header), "w.safetensors")
    assert caught.value.file == "w.safetensors"


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, MAX_HEADER_BYTES + 1, 44])
def test_a_header_longer_than_the_file_is_refused(length: int) -> None:
    """The claimed length is compared with what is there before it is used."""
    with pytest.raises(FileMalformed, match="claims"):
        read_safetensors_header(memoryview(struct.pack("<Q", length) + bytes(35)), "f")


@pytest.mark.parametrize("size", range(8))
def test_a_file_without_room_for_a_length_is_refused(size: int) -> None:
    """Fewer than eight bytes are no file."""
    with pytest.raises(FileMalformed, match="too few"):
        read_safetensors_header(memoryview(bytes(size)), "f")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_header_is_refused_or_keeps_every_promise(data: st.DataObject) -> None:
    """Whatever bytes change, the reader raises FileMalformed or returns a table that covers the file exactly."""
    mutated = bytearray(file_of(SOUND))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        action = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if action == "set":
            mutated[place] = data.draw(st.sampled_from(b'0123456789{}[]",:-eE\x00\xff\\utf'))
        elif action == "cut" and len(mutated) > 1:
            del mutated[place]
        else:
            mutated.insert(place, data.draw(st.integers(0, 255)))
    view = memoryview(bytes(mutated))
    try:
        entries = read_safetensors_header(view, "f")
    except FileMalformed:
        return
    reached = entries[0].start
    for entry in entries:
        count = 1
        for size in entry.shape:
            count *= size
        assert entry.start == reached
        assert entry.end - entry.start == count * DTYPE_BYTES[entry.dtype]
        reached = entry.end
    assert reached == len(view)
