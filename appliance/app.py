"""The composition root: the only place that opens keys, clocks, databases and the engine.

Order of a start: hold and verify the state; open the log, which recovers; record `appliance:started`; close what the
last run left open; verify the model; let the engine load and verify the weights; record `model:loaded`.  A failure on
the way closes everything that was opened, in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import structlog
from starlette.types import ASGIApp

from appliance.admission import AdmissionDoor, Obstacle
from appliance.api.audit_log import AUDIT_ROUTES
from appliance.api.doorkeeper import Doorkeeper
from appliance.api.openai_routes import OPENAI_ROUTES
from appliance.api.openapi import describe
from appliance.api.operations import OPERATION_ROUTES
from appliance.api.routing import Perimeter, RouteTable
from appliance.audit_trail import PAIRING, SYSTEM, AuditTrail, Clock, Kind
from appliance.engine_watch import EngineWatch
from appliance.gate import PolicyGate
from appliance.identity.api_keys import Pepper
from appliance.identity.authenticate import Authenticator
from appliance.identity.key_store import KeyStore
from appliance.metrics import ServingMetrics
from appliance.model_store import VerifiedModel, open_model
from appliance.prompting import SEED_SPACE
from appliance.serve import LOG_OBSTACLE, Walk
from appliance.served_model import ServedModel
from appliance.settings import Settings
from appliance.state.development import Provisioned, provision_development
from appliance.state.errors import StateMissing, StateUnusable
from appliance.state.layout import StateLayout
from appliance.state.opening import OpenState, hold_state, naming_database, open_state, read_approvals
from appliance.text.tokenizer import ModelTokenizer
from audit.content import Commitment, SubjectKeyring
from audit.errors import KeyRefused
from audit.event import Event, JsonValue, Receipt
from audit.reader import AuditReader, EntryFilter
from audit.writer import AuditWriter, WriterConfig, WriterState
from engine.config import EngineConfig
from engine.service import EngineInfo, EngineService
from policies.bundle import load_bundle

LOG = structlog.get_logger("cloister.app")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
T = TypeVar("T")


@dataclass(slots=True)
class Appliance:
    """Everything that serves, opened.  Fields are set once by `build_app`."""

    settings: Settings
    trust: str
    new_keys: Mapping[str, str] = field(repr=False)
    """Role -> API key, of the keys that this start made; shown once by the banner."""
    door: AdmissionDoor
    trail: AuditTrail
    writer: AuditWriter
    reader: AuditReader
    keys: KeyStore
    doorkeeper: Doorkeeper
    gate: PolicyGate
    engine: EngineService
    model: ServedModel
    walk: Walk
    metrics: ServingMetrics
    openapi: dict[str, Any]
    closing: AsyncExitStack
    asgi: ASGIApp = field(init=False)

    @property
    def log_origin(self) -> str:
        """The log's name in its checkpoints."""
        return self.writer.head.origin

    def log_size(self) -> int:
        """Size of the newest signed tree."""
        return self.writer.head.size

    def obstacles(self) -> tuple[Obstacle, ...]:
        """Why a request sent now would not be served, if so."""
        found = self.door.obstacles
        health = self.engine.health()
        if not health.is_healthy and not any(obstacle.code == "engine_unavailable" for obstacle in found):
            remedy = "wait for its restart" if health.state == "restarting" else "see `engine` below, then restart"
            code = "engine_stalled" if health.state == "ready" else f"engine_{health.state}"
            found = (*found, Obstacle(code, remedy))
        return found

    async def read_log(self, read: Callable[[AuditReader], T]) -> T:
        """Read the log off the event loop; the reader has connections of its own."""
        return await asyncio.to_thread(read, self.reader)

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date that nobody pushes."""
        self.metrics.admitting.set(0 if self.obstacles() else 1)
        self.metrics.tree_size.set(self.log_size())

    async def close(self) -> None:
        """Stop the engine, append `appliance:stopped`, sign the last checkpoint, let everything go."""
        await self.closing.aclose()


async def build_app(settings: Settings, *, unsafe_development_trust: bool) -> Appliance:
    """Open everything.

    Args:
        settings: as read at start.
        unsafe_development_trust: make a development state where there is none, and serve under its trust.  Without it
            both are refused: a mistyped folder in production must not start an appliance that trusts itself.

    Raises:
        StateError, ModelRefused, EngineLoadError, AuditError, PolicyError, KeyStoreError: each names what is wrong and
            the remedy.
    """
    async with AsyncExitStack() as closing:
        layout = StateLayout(settings.state_dir.resolve())
        provisioned = Provisioned(created=False, new_keys={}, changes=())
        if unsafe_development_trust:
            provisioned = await asyncio.to_thread(_provision, layout, settings)
        if not layout.root.exists():
            raise StateMissing(
                layout.root,
                "there is no state here",
                hint="set CLOISTER_STATE_DIR; `make serve` makes one under development trust",
            )
        closing.enter_context(hold_state(layout))
        state = await asyncio.to_thread(open_state, layout, _now())
        trust = state.trust_root.trust
        if trust == "development" and not unsafe_development_trust:
            raise StateUnusable(
                layout.trust_root(1),
                "this state is under development trust",
                hint="serve it by `make serve` or `cloister serve --development`",
            )

        door, metrics = AdmissionDoor(), ServingMetrics(settings.model)
        with naming_database(layout.audit_db):
            writer = _open_log(settings, state, door, metrics)
        closing.push_async_callback(asyncio.to_thread, writer.close)
        with naming_database(layout.subject_keys_db):
            keyring = closing.enter_context(SubjectKeyring(layout.subject_keys_db, state.kek))
            _prove_readable(keyring)
        reader = closing.enter_context(AuditReader(layout.audit_db))
        trail = AuditTrail(_MeasuredSink(writer, metrics), keyring, Clock(), trust=trust)
        closing.push_async_callback(_record_stop, trail, writer)
        await trail.append(
            Kind.APPLIANCE_STARTED, SYSTEM, layout.root.name, _start_facts(settings, provisioned.changes)
        )
        await _close_what_was_left_open(trail, reader)

        policy = load_bundle(state.policy_files)
        await trail.append(
            Kind.POLICY_LOADED, SYSTEM, state.policy.digest, {"seq": state.policy.seq, "engine": policy.engine_version}
        )
        verified = await asyncio.to_thread(
            open_model, layout.model(settings.model), state.trust_root, read_approvals(layout, settings.model), _now()
        )
        watch = EngineWatch(trail, door)
        engine = EngineService(
            _engine_config(settings, verified), stall_limit_s=settings.stall_limit_s, on_change=watch.on_change
        )
        loaded = await engine.start()
        closing.push_async_callback(watch.close)
        closing.push_async_callback(engine.stop, 0.0)
        await trail.append(Kind.MODEL_LOADED, SYSTEM, verified.manifest.root, _model_facts(verified, loaded))

        keys = closing.enter_context(contextlib.closing(KeyStore.open(layout.keys_db)))
        model = _served_model(verified, loaded)
        metrics.watch_engine(engine.stats)
        gate = PolicyGate(policy, trail, metrics, development_trust=trust == "development")
        walk = Walk(
            model=model,
            engine=engine,
            gate=gate,
            trail=trail,
            door=door,
            metrics=metrics,
            cache_secret=secrets.token_bytes(32),
            draw_seed=lambda: secrets.randbelow(SEED_SPACE),
        )
        routes = (*OPENAI_ROUTES, *AUDIT_ROUTES, *OPERATION_ROUTES)
        appliance = Appliance(
            settings=settings,
            trust=trust,
            new_keys=provisioned.new_keys,
            door=door,
            trail=trail,
            writer=writer,
            reader=reader,
            keys=keys,
            doorkeeper=Doorkeeper(Authenticator(keys, [Pepper(state.pepper)]), trail),
            gate=gate,
            engine=engine,
            model=model,
            walk=walk,
            metrics=metrics,
            openapi=describe(routes, version("cloister")),
            closing=closing.pop_all(),
        )
        appliance.asgi = Perimeter(appliance, RouteTable(routes))
        return appliance


class _MeasuredSink:
    """The writer, with a count and the wait per kind."""

    def __init__(self, writer: AuditWriter, metrics: ServingMetrics) -> None:
        self._writer = writer
        self._metrics = metrics

    async def append(self, event: Event) -> Receipt:
        """Append; see `audit.writer.AuditWriter.append`."""
        with self._metrics.append_seconds.labels(event.kind).time():
            receipt = await self._writer.append(event)
        self._metrics.records.labels(event.kind).inc()
        return receipt


def _provision(layout: StateLayout, settings: Settings) -> Provisioned:
    return provision_development(layout, settings.starter_dir, _now(), secrets.token_bytes, model_name=settings.model)


def _open_log(settings: Settings, state: OpenState, door: AdmissionDoor, metrics: ServingMetrics) -> AuditWriter:
    loop = asyncio.get_running_loop()

    def observe_commit(seconds: float, num_leaves: int) -> None:
        metrics.commit_seconds.observe(seconds)
        metrics.leaves_per_commit.observe(num_leaves)

    def on_halt(reason: str) -> None:
        LOG.error("log_halted", reason=reason)
        loop.call_soon_threadsafe(door.shut, LOG_OBSTACLE)

    config = WriterConfig(
        path=state.layout.audit_db,
        node_id=state.log_signer.name,
        boot_id=BOOT_ID.read_text().strip() if BOOT_ID.exists() else secrets.token_hex(16),
        min_free_bytes=settings.min_free_bytes,
    )
    return AuditWriter.open(config, [state.log_signer], observe_commit=observe_commit, on_halt=on_halt)


def _prove_readable(keyring: SubjectKeyring) -> None:
    """Ask for a key that cannot exist: a damaged file must stop the start, not the first request."""
    with contextlib.suppress(KeyRefused):
        keyring.check(Commitment("", ""), "", "", b"")


async def _record_stop(trail: AuditTrail, writer: AuditWriter) -> None:
    if writer.state is WriterState.RUNNING:
        await trail.append(Kind.APPLIANCE_STOPPED, SYSTEM, "appliance", {})


async def _close_what_was_left_open(trail: AuditTrail, reader: AuditReader) -> None:
    """Give every admitted request of the last run, which died before it could, its one terminal record.

    `policy:loaded` comes after this step in every start, so nothing older than the newest of them is still open.
    """
    done = reader.entries(EntryFilter(kind=Kind.POLICY_LOADED.value), limit=1, newest=True).entries
    from_index = done[0].index if done else 0
    for open_subject in await asyncio.to_thread(reader.open_subjects, PAIRING, from_index=from_index):
        facts: dict[str, JsonValue] = {"admitted_index": open_subject.index, "outcome": "abandoned"}
        await trail.append(Kind.REQUEST_ABANDONED, SYSTEM, open_subject.subject, facts)


def _engine_config(settings: Settings, verified: VerifiedModel) -> EngineConfig:
    return EngineConfig(
        model_dir=str(verified.folder),
        file_digests=verified.engine_digests,
        dtype=settings.dtype,
        page_size=settings.page_size,
        kv_memory_bytes=settings.kv_memory_bytes,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_sequences=settings.max_num_sequences,
        max_queue_len=settings.max_queue_len,
        num_threads=settings.engine_threads,
    )


def _served_model(verified: VerifiedModel, loaded: EngineInfo) -> ServedModel:
    return ServedModel(
        name=verified.name,
        root=verified.manifest.root,
        approved_until_us=int(dt.datetime.fromisoformat(verified.approval.expires_at).timestamp() * 1e6),
        max_label=verified.approval.max_label,
        tenants=verified.approval.tenants,
        tokenizer=ModelTokenizer(verified.files, nonce=secrets.token_hex(16)),
        max_model_len=loaded.max_model_len,
        vocab_size=loaded.vocab_size,
        dtype=loaded.dtype,
        engine_build=loaded.engine_build,
        created_s=int(_now().timestamp()),
    )


def _start_facts(settings: Settings, changes: tuple[str, ...]) -> dict[str, JsonValue]:
    return {
        "version": version("cloister"),
        "changes": list(changes),
        "host": settings.host,
        "port": settings.port,
        "model": settings.model,
    }


def _model_facts(verified: VerifiedModel, loaded: EngineInfo) -> dict[str, JsonValue]:
    return {
        "model": verified.name,
        "signer": verified.manifest.signer,
        "approvers": list(verified.approval.approvers),
        "approval_seq": verified.approval.seq,
        "num_files": len(verified.manifest.files),
        "num_weight_bytes": loaded.weight_bytes,
        "dtype": loaded.dtype,
        "engine_build": loaded.engine_build,
        "torch": loaded.torch_version,
        "max_model_len": loaded.max_model_len,
        "num_pages": loaded.num_pages,
        "page_size": loaded.page_size,
    }


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
