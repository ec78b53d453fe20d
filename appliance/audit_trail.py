"""Our event kinds, and the facts that each of them carries.

The kinds are `subject:action`; one enum; a kind is never reused and never deleted.  A leaf holds metadata and keyed
commitments, never a prompt, an answer or a secret.  `Pairing` states the law that the verifier checks: one
`request:admitted` has exactly one terminal kind.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from appliance.clock_state import UNKNOWN
from appliance.identity.principal import Principal
from audit.errors import AuditInterrupted, AuditQueueFull
from audit.event import Event, Floor, JsonValue, Receipt, SealedContent
from audit.pairing import Pairing
from audit.subject_keys.sealing import Sealed

if TYPE_CHECKING:
    from audit.subject_keys.commitment import Commitment
    from audit.subject_keys.keyring import SubjectKeyring


class Kind(StrEnum):
    """Every kind of event, in alphabetical order."""

    ACT_REFUSED = "act:refused"
    ANCHOR_FAILING = "anchor:failing"
    ANCHOR_RECOVERED = "anchor:recovered"
    APPLIANCE_STARTED = "appliance:started"
    APPLIANCE_STOPPED = "appliance:stopped"
    AUTH_REFUSED = "auth:refused"
    CLOCK_CHANGED = "clock:changed"
    CONTENT_CHECKED = "content:checked"
    CONTENT_SHOWN = "content:shown"
    ENGINE_DIED = "engine:died"
    ENGINE_RECOVERED = "engine:recovered"
    EVIDENCE_MADE = "evidence:made"
    EVIDENCE_STARTED = "evidence:started"
    EXPORT_FAILING = "export:failing"
    EXPORT_RECOVERED = "export:recovered"
    HOLD_PLACED = "hold:placed"
    HOLD_RELEASED = "hold:released"
    HOLD_RELEASE_PROPOSED = "hold_release:proposed"
    KEY_REVOKED = "key:revoked"
    KEYS_LISTED = "keys:listed"
    LOG_FILLING = "log:filling"
    LOG_HALTED = "log:halted"
    LOG_KEY_ROTATED = "log:key_rotated"
    LOG_PRUNED = "log:pruned"
    LOG_READ = "log:read"
    MODEL_LOADED = "model:loaded"
    POLICY_LOADED = "policy:loaded"
    PRUNE_PROPOSED = "prune:proposed"
    REPLAY_ENDED = "replay:ended"
    REPLAY_STARTED = "replay:started"
    REPORT_MADE = "report:made"
    REPORT_RUN = "report:run"
    REQUEST_ABANDONED = "request:abandoned"
    REQUEST_ADMITTED = "request:admitted"
    REQUEST_CANCELLED = "request:cancelled"
    REQUEST_COMPLETED = "request:completed"
    REQUEST_DENIED = "request:denied"
    REQUEST_FAILED = "request:failed"
    REQUEST_REFUSED = "request:refused"
    RETENTION_LOWERED = "retention:lowered"
    RETENTION_SET = "retention:set"
    RETENTION_CHANGE_PROPOSED = "retention_change:proposed"
    REVIEW_SIGNED_OFF = "review:signed_off"
    SUBJECT_ERASED = "subject:erased"
    SUBJECT_ERASING = "subject:erasing"
    UNSEAL_APPROVED = "unseal:approved"
    UNSEAL_PROPOSED = "unseal:proposed"
    WITNESS_ENROLLED = "witness:enrolled"
    WITNESS_REFUSED = "witness:refused"


PAIRING = Pairing(
    opening=Kind.REQUEST_ADMITTED.value,
    terminals=frozenset(
        kind.value
        for kind in (
            Kind.REQUEST_COMPLETED,
            Kind.REQUEST_FAILED,
            Kind.REQUEST_CANCELLED,
            Kind.REQUEST_ABANDONED,
        )
    ),
    opening_index_fact="admitted_index",
)
"""The law of two records: what was admitted ends exactly once."""
REPLAY_PAIRING = Pairing(
    opening=Kind.REPLAY_STARTED.value,
    terminals=frozenset({Kind.REPLAY_ENDED.value}),
    opening_index_fact="started_index",
)
"""A replay that began ends exactly once as well."""
SYSTEM = Principal(id="system", kind="Service", tenant="", roles=(), clearance=0, key_id="")
"""The appliance itself as an actor."""
QUEUE_RETRY_S = 0.05
"""Between two tries of an owed record while the queue of records is full."""


def key_subject(tenant: str, subject: str) -> str:
    """Name a person to the keyring: an id is unique inside its tenant only, and an erasure must reach one person."""
    return json.dumps([tenant, subject], separators=(",", ":"))


class EventSink(Protocol):
    """Where events go; `audit.writer.AuditWriter` is the one there is."""

    async def append(self, event: Event, contents: Sequence[SealedContent] = ()) -> Receipt:
        """Durable when it returns, with what is sealed beside it.  Raises when the leaf is not known to be durable."""
        ...

    async def prune(self, event: Event, floor: Floor) -> Receipt:
        """Durable when it returns: what lies below is gone.  Raises as `append` does."""
        ...


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks, as arguments, so that tests choose the time."""

    utc_us: Callable[[], int] = lambda: time.time_ns() // 1000
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    state: Callable[[], str] = lambda: UNKNOWN.word
    """Whether a time source keeps it; see `appliance.clock_state`."""


class AuditTrail:
    """Turns what happened into events and waits until they are durable."""

    def __init__(
        self,
        sink: EventSink,
        keyring: SubjectKeyring,
        clock: Clock,
        *,
        trust: str,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sink = sink
        self._is_away = is_away
        """Whether the log's database is being waited for: only owed records wait with it."""
        self._keyring = keyring
        self._clock = clock
        self._trust = trust
        """`development` or `production`: stands in every record."""

    @property
    def clock(self) -> Clock:
        """The clock that stamps the events."""
        return self._clock

    async def append(
        self,
        kind: Kind,
        actor: Principal,
        subject: str,
        facts: Mapping[str, JsonValue],
        contents: Sequence[SealedContent] = (),
    ) -> Receipt:
        """Record one event, and what is sealed beside it.

        Raises:
            audit.errors.AuditError: the leaf is not known to be durable; the caller must not go on as if it were.
        """
        if self._is_away():
            raise AuditInterrupted
        return await self._sink.append(self._event(kind, actor, subject, facts), contents)

    async def append_owed(
        self,
        kind: Kind,
        actor: Principal,
        subject: str,
        facts: Mapping[str, JsonValue],
        contents: Sequence[SealedContent] = (),
    ) -> Receipt:
        """Record an event that may not be left out: a full queue of records and an absent database are waited out.

        Raises:
            audit.errors.AuditError: as `append` does, but never `AuditQueueFull` or `AuditInterrupted`.
        """
        while True:
            try:
                return await self._sink.append(self._event(kind, actor, subject, facts), contents)
            except AuditQueueFull:
                await asyncio.sleep(QUEUE_RETRY_S)

    async def prune(
        self, kind: Kind, actor: Principal, subject: str, facts: Mapping[str, JsonValue], floor: Floor
    ) -> Receipt:
        """Record that a floor of pruning rises, which is the pruning; that it may is the caller's to know."""
        return await self._sink.prune(self._event(kind, actor, subject, facts), floor)

    def commitment(
        self, actor: Principal, request_id: str, phase: str, content: bytes, *, key_id: str | None = None
    ) -> dict[str, JsonValue]:
        """Commit to content without keeping it.

        The commitment is keyed: nobody who lacks the subject's key can test a guess against it, and destroying that
        key makes it meaningless while every proof stays valid.

        Args:
            actor: whose key.
            request_id: of which request.
            phase: which of its contents.
            content: the bytes.
            key_id: the key that the request began under; None at its beginning.

        Raises:
            audit.errors.SubjectErased: that key was destroyed meanwhile.
            audit.errors.AuditError: the subject's key cannot be had; what would be recorded without it is not.
        """
        made = self._keyring.commitment(key_subject(actor.tenant, actor.id), request_id, phase, content, key_id=key_id)
        return {"hmac": made.hmac_hex, "key_id": made.key_id}

    def unsealed(self, content: SealedContent, request_id: str) -> bytes:
        """Open what was sealed beside a leaf of this request.  Reads the keys' file: not for the event loop.

        Who may see it is the caller's to know.

        Raises:
            SubjectErased, KeyRefused: nobody here can read it.
            AuditCorrupt: altered, or sealed for another request or phase.
        """
        sealed = Sealed(content.key_id, content.nonce, content.ciphertext)
        return self._keyring.unseal(sealed, request_id, content.phase)

    def marks(
        self, actor: Principal, request_id: str, phase: str, parts: Iterable[bytes], *, key_id: str | None
    ) -> str:
        """Mark growing parts of a content, so that a later one can be told from it part by part without it.

        Returns:
            Four characters of base64url per part.

        Raises:
            audit.errors.AuditError: as `commitment` does.
        """
        subject = key_subject(actor.tenant, actor.id)
        return _text(self._keyring.marks(subject, request_id, phase, parts, key_id=key_id))

    def check_commitment(self, commitment: Commitment, request_id: str, phase: str, content: bytes) -> bool:
        """Tell whether a recorded commitment is to this content.  Reads the keys' file: not for the event loop.

        Raises:
            SubjectErased, KeyRefused: nobody here can tell.
        """
        return self._keyring.check(commitment, request_id, phase, content)

    def marks_by(self, key_id: str, request_id: str, phase: str, parts: Iterable[bytes]) -> str:
        """Give the marks that a content would have; raises as `check_commitment` does, and reads the same file."""
        return _text(self._keyring.marks_by(key_id, request_id, phase, parts))

    def sealed(
        self, actor: Principal, request_id: str, phase: str, content: bytes, *, key_id: str | None = None
    ) -> SealedContent:
        """Seal content, to be stored beside its leaf; arguments and errors are those of `commitment`."""
        subject = key_subject(actor.tenant, actor.id)
        made = self._keyring.seal(subject, request_id, phase, content, key_id=key_id)
        return SealedContent(phase, made.key_id, made.nonce, made.ciphertext)

    def prove_subject_keys(self) -> None:
        """Prove that a person who never came before could be committed for now.

        Raises:
            audit.errors.AuditError: not so.
        """
        self._keyring.prove_writable()

    def _event(self, kind: Kind, actor: Principal, subject: str, facts: Mapping[str, JsonValue]) -> Event:
        return Event(
            kind=kind.value,
            ts_us=self._clock.utc_us(),
            monotonic_ns=self._clock.monotonic_ns(),
            actor=actor.id,
            role=",".join(actor.roles),
            tenant=actor.tenant,
            subject=subject,
            facts={"trust": self._trust, "clock_state": self._clock.state(), **facts},
        )


def _text(marks: bytes) -> str:
    return base64.urlsafe_b64encode(marks).decode()
