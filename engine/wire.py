"""What the service and the engine process say to each other: a closed set of typed messages in bounded frames.

A frame is four bytes of length, big endian, and one msgpack value.  Only the messages below can come out of a frame;
bytes are never code.  A frame that is too long, empty or of another shape is `MalformedFrame`, and that ends the
connection: nothing after it can be trusted to begin where it seems to.

The talk in order:
    service                                  engine process
    Configure                           ->
                                        <-   Loaded | LoadFailed
    Add, Cancel (any number, any time)  ->
                                        <-   Started   before the step that first computes those requests
                                        <-   Step      one per step, also when it has no events
                                        <-   Refused   instead of any event for that request
                                        <-   Fault     last words before the process ends by itself
    Stop                                ->             the process ends; so does it when the socket closes

The frozen values of the border (`GenerationRequest`, `StepEvent`, `CoreStats`, `EngineConfig`) travel as they are.
"""

from __future__ import annotations

import struct

import msgspec

from engine.config import EngineConfig
from engine.health import EngineInfo
from engine.request import GenerationRequest, StepEvent
from engine.stats import CoreStats

MAX_FRAME_BYTES = 16 * 2**20
"""Above any step of a full batch with logprobs, far below what would hurt the machine."""

_LENGTH = struct.Struct(">I")


class Configure(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="configure"):
    """The first message; there is exactly one."""

    config: EngineConfig


class Add(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="add"):
    """Generate this."""

    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="cancel"):
    """End this request at the next step; unknown and finished ids are no error, they crossed on the way."""

    request_id: str


class Stop(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="stop"):
    """End the process now."""


class Loaded(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="loaded"):
    """Every byte was verified; requests may come."""

    info: EngineInfo


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="load_failed"):
    """The model is not served; the process ends."""

    file: str
    """Name inside the model folder; empty when no single file is at fault."""
    reason: str
    hint: str
    """What the operator does about it."""


class Started(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="started"):
    """These requests enter a step for the first time.

    Sent before that step: should the step end the process, the service knows whom not to try again.
    """

    request_ids: tuple[str, ...]


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="step"):
    """What one step did."""

    events: tuple[StepEvent, ...]
    stats: CoreStats


class Refused(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="refused"):
    """The engine does not take this request, for a reason that concerns it alone."""

    request_id: str
    code: str


class Fault(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="fault"):
    """Why the process ends itself.  Names code, never data: an exception's text might hold a prompt."""

    code: str
    """Stable: `step_failed`, `load_broken`, `integrity_failed`, `malformed_frame`, `unexpected_message`."""
    exception: str
    """Class name, or empty."""
    where: str
    """Innermost place, `file:line function`, or empty."""


ToWorker = Configure | Add | Cancel | Stop
FromWorker = Loaded | LoadFailed | Started | Step | Refused | Fault


class MalformedFrame(Exception):
    """Bytes that no peer of ours sends.  The connection is over."""


class FrameTooLarge(ValueError):
    """A message of ours that the other side would have to call malformed."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the message has {size_bytes} bytes, a frame at most {MAX_FRAME_BYTES}")
        self.size_bytes = size_bytes


_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode_frame(message: ToWorker | FromWorker) -> bytearray:
    """Give the message as one frame.

    Raises:
        FrameTooLarge: nothing was sent and nothing must be.
    """
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(message, frame, _LENGTH.size)
    size = len(frame) - _LENGTH.size
    if size > MAX_FRAME_BYTES:
        raise FrameTooLarge(size)
    _LENGTH.pack_into(frame, 0, size)
    return frame


def decode_to_worker(payload: bytes | memoryview) -> ToWorker:
    """Read what the service sent."""
    try:
        message: ToWorker = _to_worker.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MalformedFrame("not a message to the worker") from None
    return message


def decode_from_worker(payload: bytes) -> FromWorker:
    """Read what the engine process sent."""
    try:
        message: FromWorker = _from_worker.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MalformedFrame("not a message from the worker") from None
    return message


def checked_frame(message: ToWorker) -> bytearray:
    """Give the message as one frame that the worker is known to accept.

    For what a caller composed: a value of a wrong type must fail here and alone, not in the worker for everyone.

    Raises:
        FrameTooLarge: see `encode_frame`.
        MalformedFrame: the worker would refuse it.
    """
    try:
        frame = encode_frame(message)
    except (TypeError, OverflowError, ValueError) as error:
        if isinstance(error, FrameTooLarge):
            raise
        raise MalformedFrame("not expressible on the wire") from None
    decode_to_worker(memoryview(frame)[_LENGTH.size :])
    return frame


class FrameReader:
    """Cuts a stream of bytes into payloads.  Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in, give every payload that is complete, in order.

        Raises:
            MalformedFrame: an empty or oversized frame; the reader is useless from then on.
        """
        self._pending += data
        payloads: list[bytes] = []
        position = 0
        while len(self._pending) - position >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._pending, position)
            if not 0 < size <= MAX_FRAME_BYTES:
                raise MalformedFrame(f"a frame of {size} bytes")
            end = position + _LENGTH.size + size
            if len(self._pending) < end:
                break
            payloads.append(bytes(self._pending[position + _LENGTH.size : end]))
            position = end
        del self._pending[:position]
        return payloads
