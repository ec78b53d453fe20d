"""The real perimeter in this process: real keys, policy, log and routes on a walk bench, called over HTTP semantics.

What is not real: the engine is scripted, and no socket lies between client and application.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from identity_keys import HOUR_US, PEPPER, make_record
from walk_bench import Fault, WalkBench

from appliance.api.doorkeeper import Doorkeeper
from appliance.api.openapi import describe
from appliance.api.route_spec import RouteSpec
from appliance.api.routes import ROUTES
from appliance.api.routing import Perimeter, RouteTable
from appliance.app import Appliance
from appliance.identity.api_keys import mint
from appliance.identity.authenticate import Authenticator
from appliance.identity.key_store import KeyStore
from appliance.keeping.retention_profiles import RetentionFloor, floor_of
from appliance.log_opening import OpenLog
from appliance.settings import Settings

ROLES = ("auditor", "developer", "operator", "peer", "privacy")
BASE_URL = "http://127.0.0.1"


@functools.cache
def described() -> Mapping[str, Any]:
    """Describe the delivered routes, once: it takes as long as all the rest of a bench."""
    return describe(ROUTES, "0")


class PerimeterBench:
    """One appliance in a folder of its own; every key's owner has the name of its role."""

    def __init__(
        self,
        folder: Path,
        *,
        fail_at: int | None = None,
        fault: Fault = "not_persisted",
        settings: Settings | None = None,
        retention: RetentionFloor | None = None,
        extra_routes: tuple[RouteSpec, ...] = (),
    ) -> None:
        self.walk_bench = WalkBench(folder, fail_at=fail_at, fault=fault)
        bench = self.walk_bench
        self.reader = bench.reader
        self.keys = KeyStore.create(folder / "keys.db")
        self.key_ids: dict[str, str] = {}
        self._credentials: dict[str, str] = {}
        for number, role in enumerate(ROLES):
            self.add_key(role, number, owner=role, tenant="plant-1", roles=(role,))
        self.doorkeeper = Doorkeeper(Authenticator(self.keys, [PEPPER], lambda _record, _day: None), bench.trail)
        routes = (*ROUTES, *extra_routes)
        self.appliance = Appliance(
            settings=settings or Settings(),
            trust="development",
            new_keys={},
            door=bench.door,
            log=OpenLog(bench.writer, bench.reader, bench.trail, bench.keyring),
            keys=self.keys,
            doorkeeper=self.doorkeeper,
            gate=bench.gate,
            engine=bench.engine,
            model=bench.walk.model,
            recorder=bench.recorder,
            walk=bench.walk,
            replayer=bench.replayer,
            metrics=bench.metrics,
            openapi=describe(routes, "0") if extra_routes else described(),
            retention=retention or floor_of((settings or Settings()).retention_profiles),
            closing=AsyncExitStack(),
        )
        self.application = Perimeter(self.appliance, RouteTable(routes))

    def client(self, role: str | None) -> httpx.AsyncClient:
        """Give a client with one role's key, or with none."""
        headers = self.headers(role)
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.application), base_url=BASE_URL, headers=headers, trust_env=False
        )

    def headers(self, role: str | None) -> dict[str, str]:
        """Give the head's credential of one role, or none."""
        return {} if role is None else {"authorization": f"Bearer {self._credentials[role]}"}

    def close(self) -> None:
        """Let everything go."""
        self.keys.close()
        self.walk_bench.close()

    def add_key(
        self, name: str, number: int, *, owner: str, tenant: str, roles: tuple[str, ...], clearance: int = 2
    ) -> None:
        """Add a key that `client(name)` uses; `number` decides its secret."""
        key = mint("dev", random.Random(number).randbytes)
        now_us = time.time_ns() // 1000
        self.keys.add(
            make_record(
                key,
                owner=owner,
                tenant=tenant,
                roles=roles,
                clearance=clearance,
                not_before_us=now_us - HOUR_US,
                expires_at_us=now_us + HOUR_US,
            )
        )
        self.key_ids[name] = key.key_id
        self._credentials[name] = key.unsafe_text
