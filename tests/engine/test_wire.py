"""The wire: whatever is sent arrives, whatever else arrives is refused, and nothing is executed."""

from __future__ import annotations

import struct
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import wire
from engine.config import EngineConfig, FileDigest
from engine.health import EngineInfo
from engine.request import GenerationRequest, SamplingParams, StepEvent, TokenLogprobs
from engine.stats import CoreStats

settings.register_profile("wire", max_examples=60, deadline=None)
PROPERTY = settings.get_profile("wire")

naturals = st.integers(0, 2**63 - 1)
reals = st.floats(allow_nan=False)
params = st.builds(
    SamplingParams,
    max_tokens=naturals,
    temperature=reals,
    top_k=naturals,
    top_p=reals,
    logit_bias=st.lists(st.tuples(naturals, reals), max_size=3).map(tuple),
    seed=st.integers(0, 2**64 - 1),
    stop_token_ids=st.lists(naturals, max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    num_logprobs=st.none() | naturals,
)
requests = st.builds(
    GenerationRequest,
    request_id=st.text(),
    token_ids=st.lists(naturals, min_size=1, max_size=20).map(tuple),
    params=params,
    cache_salt=st.binary(max_size=40),
    fairness_key=st.text(max_size=5),
    priority=st.integers(-(2**63), 2**63 - 1),
)
logprobs = st.builds(
    TokenLogprobs, token_id=naturals, logprob=reals, rank=naturals, top=st.lists(st.tuples(naturals, reals)).map(tuple)
)
events = st.builds(
    StepEvent,
    request_id=st.text(),
    token_ids=st.lists(naturals, max_size=3).map(tuple),
    logprobs=st.lists(logprobs, max_size=2).map(tuple),
    finish=st.sampled_from([None, "stop", "length", "cancelled", "error"]),
    stop_token_id=st.none() | naturals,
    error=st.none() | st.text(),
    num_cached_tokens=st.none() | naturals,
    queue_time_s=st.none() | reals,
    num_preemptions=naturals,
)
configs = st.builds(
    EngineConfig,
    model_dir=st.text(),
    file_digests=st.lists(st.builds(FileDigest, name=st.text(), sha256=st.text()), max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
core_stats = st.builds(CoreStats, kv_usage_perc=reals, kv_waste_perc=reals, num_steps=naturals)
to_worker = st.one_of(
    st.builds(wire.Configure, configs),
    st.builds(wire.Add, requests),
    st.builds(wire.Cancel, st.text()),
    st.just(wire.Stop()),
)
from_worker = st.one_of(
    st.builds(wire.Loaded, st.builds(EngineInfo, verify_s=reals, build_s=reals)),
    st.builds(wire.LoadFailed, st.text(), st.text(), st.text()),
    st.builds(wire.Started, st.lists(st.text()).map(tuple)),
    st.builds(wire.Step, st.lists(events, max_size=4).map(tuple), core_stats),
    st.builds(wire.Refused, st.text(), st.text()),
    st.builds(wire.Fault, st.text(), st.text(), st.text()),
)


def encodable(message: object) -> bool:
    """Whether every number is one that msgpack knows."""
    try:
        msgspec.msgpack.encode(message)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


def payload_of(frame: bytes | bytearray) -> bytes:
    """The only payload of one frame."""
    (payload,) = wire.FrameReader().feed(bytes(frame))
    return payload


@PROPERTY
@given(to_worker.filter(encodable))
def test_message_to_the_worker_arrives_as_it_was(message):
    """Encode, frame, read, decode: the same value, of the same type."""
    assert wire.decode_to_worker(payload_of(wire.encode_frame(message))) == message


@PROPERTY
@given(from_worker.filter(encodable))
def test_message_from_the_worker_arrives_as_it_was(message):
    """Encode, frame, read, decode: the same value, of the same type."""
    assert wire.decode_from_worker(payload_of(wire.encode_frame(message))) == message


@PROPERTY
@given(st.lists(to_worker.filter(encodable), max_size=5), st.data())
def test_frames_survive_any_cutting(messages, data):
    """However the stream is cut into pieces, the same payloads come out in the same order."""
    stream = b"".join(wire.encode_frame(message) for message in messages)
    reader, arrived, position = wire.FrameReader(), [], 0
    while position < len(stream):
        size = data.draw(st.integers(1, 40))
        arrived += reader.feed(stream[position : position + size])
        position += size
    assert [wire.decode_to_worker(payload) for payload in arrived] == messages


@PROPERTY
@given(st.binary(max_size=200))
def test_noise_is_malformed_or_a_message(noise):
    """Arbitrary bytes give a message of the closed set or MalformedFrame, and no other exception."""
    for decode, kinds in (
        (wire.decode_to_worker, typing.get_args(wire.ToWorker)),
        (wire.decode_from_worker, typing.get_args(wire.FromWorker)),
    ):
        try:
            message = decode(noise)
        except wire.MalformedFrame:
            continue
        assert type(message) in kinds


@PROPERTY
@given(to_worker.filter(encodable), st.data())
def test_damaged_message_is_malformed_or_a_message(message, data):
    """One changed byte in a real payload never gives another exception."""
    payload = bytearray(payload_of(wire.encode_frame(message)))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        damaged = wire.decode_to_worker(bytes(payload))
    except wire.MalformedFrame:
        return
    assert type(damaged) in typing.get_args(wire.ToWorker)


@pytest.mark.parametrize("size", [0, wire.MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_frame_outside_the_bounds_is_malformed(size):
    """An empty or oversized frame is refused by its length, before a byte of it is kept."""
    with pytest.raises(wire.MalformedFrame):
        wire.FrameReader().feed(struct.pack(">I", size))


def test_largest_frame_passes():
    """The bound itself is allowed."""
    payload = b"\0" * wire.MAX_FRAME_BYTES
    assert wire.FrameReader().feed(struct.pack(">I", len(payload)) + payload) == [payload]


def test_oversized_message_is_not_sent():
    """The sender refuses what the receiver would have to call malformed."""
    with pytest.raises(wire.FrameTooLarge):
        wire.encode_frame(wire.Cancel("x" * (wire.MAX_FRAME_BYTES + 1)))


def test_deep_nesting_is_malformed():
    """A value nested to exhaust the stack is refused."""
    with pytest.raises(wire.MalformedFrame):
        wire.decode_to_worker(b"\x91" * 200_000)


PICKLE_OF_PRINT = b"\x80\x04\x95\x16\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x05print\x94\x93\x94."
"""As bytes: the module that makes them is imported nowhere, not even here."""


def test_pickle_is_malformed():
    """A pickle is bytes of no known shape; nothing of it runs."""
    with pytest.raises(wire.MalformedFrame):
        wire.decode_to_worker(PICKLE_OF_PRINT)


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.msgpack.encode(["stop", 1]),
        msgspec.msgpack.encode(["cancel"]),
        msgspec.msgpack.encode(["cancel", 1]),
        msgspec.msgpack.encode(["loaded", {}]),
        msgspec.msgpack.encode(["exec", "print()"]),
        msgspec.msgpack.encode({"type": "stop"}),
        msgspec.msgpack.encode(["stop"]) + b"\0",
    ],
    ids=["too many fields", "too few fields", "wrong type", "other direction", "unknown tag", "a map", "a tail"],
)
def test_message_of_another_shape_is_malformed(payload):
    """The set of messages is closed, and each has exactly its fields."""
    with pytest.raises(wire.MalformedFrame):
        wire.decode_to_worker(payload)
