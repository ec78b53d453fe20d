"""`/livez` and `/readyz`: the only answers that need no credential.

Live means: the process answers.  Ready means: a request sent now would be admitted, and the engine finished a step
recently or has nothing to do.  Neither carries anything secret.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from appliance.app import Appliance


def livez(_appliance: Appliance) -> JSONResponse:
    """Say that the process answers."""
    return JSONResponse({"status": "live"})


def readyz(appliance: Appliance) -> JSONResponse:
    """Say whether requests are admitted, and if not, why and what to do."""
    obstacles = appliance.obstacles()
    body = {
        "status": "ready" if not obstacles else "not ready",
        "trust": appliance.trust,
        "obstacles": [{"code": obstacle.code, "remedy": obstacle.remedy} for obstacle in obstacles],
        "model": {"name": appliance.model.name, "root": appliance.model.root},
        "engine": _engine_body(appliance),
        "log": {"tree_size": appliance.log_size(), "origin": appliance.log_origin},
    }
    return JSONResponse(body, status_code=503 if obstacles else 200)


def _engine_body(appliance: Appliance) -> dict[str, Any]:
    health = appliance.engine.health()
    return {
        "state": health.state,
        "restarts": health.restarts,
        "last_exit": None if health.last_exit is None else dataclasses.asdict(health.last_exit),
        "running": health.num_running,
        "waiting": health.num_waiting,
    }
