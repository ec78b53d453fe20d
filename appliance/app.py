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
from typing import Any, TypeVar

import structlog

from appliance.admission import AdmissionDoor, Obstacle
from appliance.anchors.witnessing import Witnessing, open_witnessing
from appliance.api.doorkeeper import Doorkeeper
from appliance.api.openapi import describe
from appliance.api.routes import ROUTES
from appliance.audit_trail import SYSTEM, AuditTrail, Kind
from appliance.gate import PolicyGate
from appliance.generation import Generation
from appliance.identity.api_keys import Pepper
from appliance.identity.authenticate import Authenticator
from appliance.identity.key_store import KeyStore
from appliance.identity.last_use import LastUse
from appliance.keeping.retention import state_retention
from appliance.keeping.retention_profiles import RetentionFloor
from appliance.log_opening import OpenLog, open_log
from appliance.metrics import ServingMetrics
from appliance.model_loading import load_model
from appliance.prompting import SEED_SPACE
from appliance.recorder import RequestRecorder
from appliance.remembered import require_policy_not_older, revoke_again
from appliance.replay.replayer import Replayer
from appliance.serve import Walk
from appliance.served_model import ServedModel
from appliance.settings import Settings
from appliance.state.development import Provisioned, provision_development
from appliance.state.errors import StateMissing, StateUnusable
from appliance.state.layout import StateLayout
from appliance.state.opening import OpenState, hold_state, open_state
from audit.event import JsonValue
from audit.reader import AuditReader
from audit.writer import WriterState
from engine.service import EngineService
from policies.bundle import load_bundle

LOG = structlog.get_logger("cloister.app")
CLOCK_VALUES = {"synchronised": 1, "unsynchronised": 0, "unknown": -1}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Appliance:
    """Everything that serves, opened by `build_app`; its endpoints find it here."""

    settings: Settings
    trust: str
    new_keys: Mapping[str, str] = field(repr=False)
    """Role -> API key, of the keys that this start made; shown once by the banner."""
    door: AdmissionDoor
    log: OpenLog
    keys: KeyStore
    doorkeeper: Doorkeeper
    gate: PolicyGate
    engine: EngineService
    model: ServedModel
    recorder: RequestRecorder
    walk: Walk
    replayer: Replayer
    metrics: ServingMetrics
    openapi: Mapping[str, Any]
    retention: RetentionFloor
    """In force since this start, and stated in the log."""
    closing: AsyncExitStack
    witnessing: Witnessing | None = None
    """Of other logs, if the settings name some."""
    one_act_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from judging an act on what is kept to the leaf that says it was taken up: no two see the same state."""
    one_long_reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever reads as much of the log as there is: reports and counts."""

    @property
    def trail(self) -> AuditTrail:
        """Where events go."""
        return self.log.trail

    @property
    def log_origin(self) -> str:
        """The log's name in its checkpoints."""
        return self.log.writer.head.origin

    def log_size(self) -> int:
        """Size of the newest signed tree."""
        return self.log.writer.head.size

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
        return await asyncio.to_thread(read, self.log.reader)

    def refresh_gauges(self) -> None:
        """Bring the gauges up to date that nobody pushes."""
        self.metrics.admitting.set(0 if self.obstacles() else 1)
        self.metrics.tree_size.set(self.log_size())
        self.metrics.waiting.set(self.log.writer.num_waiting)
        self.metrics.halted.set(self.log.writer.state is WriterState.HALTED)
        commit = self.log.activity.newest_commit
        self.metrics.last_commit.set(0 if commit is None else commit.at_us / 1e6)
        self.metrics.clock_synchronised.set(CLOCK_VALUES[self.log.clock.state().word])
        for keeper in self.log.anchoring.keepers:
            self.metrics.anchored(keeper.name, keeper.status)
        for exporter in self.log.exports.exporters:
            self.metrics.exported(exporter.destination.text, exporter.status, self.log_size())

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
        StateError, ModelRefused, EngineLoadError, AuditError, PolicyError, KeyStoreError, SettingsRefused: each names
            what is wrong and the remedy.
    """
    async with AsyncExitStack() as closing:
        layout = StateLayout(settings.state_dir.resolve())
        provisioned = Provisioned(created=False, new_keys={}, changes=())
        if unsafe_development_trust:
            provisioned = await asyncio.to_thread(_provision, layout, settings)
        state = await _open_state(layout, closing, unsafe_development_trust=unsafe_development_trust)
        door, metrics = AdmissionDoor(), ServingMetrics(settings.model)
        start_facts = _start_facts(settings, provisioned.changes)
        log = await open_log(settings, state, door, metrics, start_facts, closing)
        retention = await state_retention(log.trail, log.reader, settings.retention_profiles)
        await asyncio.to_thread(require_policy_not_older, log.reader, layout.policy, state.policy.seq)
        policy = load_bundle(state.policy_files)
        policy_facts: dict[str, JsonValue] = {"seq": state.policy.seq, "engine": policy.engine_version}
        await log.trail.append(Kind.POLICY_LOADED, SYSTEM, state.policy.digest, policy_facts)
        engine, model = await load_model(settings, state, log, door, _now(), closing)
        metrics.watch_engine(engine.stats)
        keys = closing.enter_context(contextlib.closing(KeyStore.open(layout.keys_db)))
        await asyncio.to_thread(revoke_again, log.reader, keys)
        last_use = LastUse.open(layout.keys_db, lambda failure: _tell_unnoted_use(metrics, failure))
        closing.push_async_callback(asyncio.to_thread, last_use.close)
        trust = state.trust_root.trust
        gate = PolicyGate(policy, log.trail, metrics, development_trust=trust == "development")
        recorder = RequestRecorder(log.trail, door, metrics)
        walk = Walk(
            model=model,
            door=door,
            gate=gate,
            recorder=recorder,
            generation=Generation(engine, log.trail.clock, metrics, secrets.token_bytes(32)),
            clock=log.trail.clock,
            draw_seed=lambda: secrets.randbelow(SEED_SPACE),
        )
        return Appliance(
            settings=settings,
            trust=trust,
            new_keys=provisioned.new_keys,
            door=door,
            log=log,
            keys=keys,
            doorkeeper=Doorkeeper(Authenticator(keys, [Pepper(state.pepper)], last_use.note), log.trail),
            gate=gate,
            engine=engine,
            model=model,
            recorder=recorder,
            walk=walk,
            replayer=Replayer(
                trail=log.trail,
                reader=log.reader,
                door=door,
                gate=gate,
                engine=engine,
                model=lambda: walk.model,
                deadline_s=settings.replay_deadline_s,
            ),
            metrics=metrics,
            openapi=describe(ROUTES, version("cloister")),
            retention=retention,
            witnessing=await asyncio.to_thread(open_witnessing, settings, layout, log.reader),
            closing=closing.pop_all(),
        )


async def _open_state(layout: StateLayout, closing: AsyncExitStack, *, unsafe_development_trust: bool) -> OpenState:
    if not layout.root.exists():
        raise StateMissing(
            layout.root,
            "there is no state here",
            hint="set CLOISTER_STATE_DIR; `make serve` makes one under development trust",
        )
    closing.enter_context(hold_state(layout))
    state = await asyncio.to_thread(open_state, layout, _now())
    if state.trust_root.trust == "development" and not unsafe_development_trust:
        raise StateUnusable(
            layout.trust_root(1),
            "this state is under development trust",
            hint="serve it by `make serve` or `cloister serve --development`",
        )
    return state


def _provision(layout: StateLayout, settings: Settings) -> Provisioned:
    return provision_development(layout, settings.starter_dir, _now(), secrets.token_bytes, model_name=settings.model)


def _start_facts(settings: Settings, changes: tuple[str, ...]) -> dict[str, JsonValue]:
    return {
        "version": version("cloister"),
        "changes": list(changes),
        "host": settings.host,
        "port": settings.port,
        "model": settings.model,
        "anchors": settings.anchor_names,
        "siem_exports": list(settings.siem_exports),
    }


def _tell_unnoted_use(metrics: ServingMetrics, failure: Exception) -> None:
    metrics.key_use_write_failures.inc()
    LOG.warning("key_use_not_noted", error=type(failure).__name__, reason=str(failure))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
