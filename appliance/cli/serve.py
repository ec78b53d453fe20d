"""`cloister serve`: make or open the state, serve, prove a first token, say so, stop in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import httpx
import uvloop

from appliance.app import Appliance
from appliance.cli.banner import Ready, ready_banner
from appliance.cli.client import ClientRefused, read_key
from appliance.cli.refusals import exits_cleanly
from appliance.cli.sample import MESSAGES
from appliance.logs import configure_logs
from appliance.server import run
from appliance.settings import Settings, read_settings
from appliance.state.layout import StateLayout

FIRST_TOKEN_TIMEOUT = httpx.Timeout(10.0, read=300.0)


@exits_cleanly
def serve() -> None:
    """Serve until Ctrl-C or SIGTERM, then stop in order."""
    settings = read_settings()
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, lambda appliance: _announce(settings, appliance)))


async def _announce(settings: Settings, appliance: Appliance) -> None:
    ready = await _first_token(settings, appliance, appliance.new_keys)
    print(ready_banner(ready), flush=True)


async def _first_token(settings: Settings, appliance: Appliance, new_keys: Mapping[str, str]) -> Ready:
    """Ask over HTTP with the developer's key, as anyone else would: the whole walk has to work."""
    layout = StateLayout(settings.state_dir.resolve())
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    body = {"model": appliance.model.name, "messages": MESSAGES, "temperature": 0, "stream": False}
    headers = {"authorization": f"Bearer {read_key('developer', layout)}"}
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=FIRST_TOKEN_TIMEOUT, trust_env=False) as client:
        response = await client.post("/v1/chat/completions", json=body, headers=headers)
    if response.is_error:
        raise ClientRefused(f"the first request failed with {response.status_code}: {response.text}")
    return Ready(
        url=url,
        model=appliance.model.name,
        keys_file=layout.dev_keys,
        log_key=layout.log_vkey,
        new_keys=new_keys,
        first_answer=response.json()["choices"][0]["message"]["content"],
        first_token_ms=round((time.monotonic() - started) * 1000),
        receipt=response.headers["x-cloister-receipt"],
    )
