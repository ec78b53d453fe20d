"""`cloister serve`: make or open the state, serve, prove a first token, say so, stop in order."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import httpx
import typer
import uvloop

from appliance.app import Appliance
from appliance.cli.banner import FirstToken, Ready, ready_banner
from appliance.cli.client import ClientRefused, base_url, read_key, text_of
from appliance.cli.refusals import exits_cleanly
from appliance.cli.sample import ASKING
from appliance.logs import configure_logs
from appliance.server import run
from appliance.settings import Settings, read_settings
from appliance.state.layout import StateLayout

FIRST_TOKEN_TIMEOUT = httpx.Timeout(10.0, read=300.0)


@exits_cleanly
def serve(
    *,
    development: Annotated[
        bool,
        typer.Option("--development", help="Make a development state if there is none, and serve under its trust."),
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop in order."""
    settings = read_settings()
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            run(
                settings,
                lambda appliance: _announce(settings, appliance),
                unsafe_development_trust=development,
            )
        )


async def _announce(settings: Settings, appliance: Appliance) -> None:
    layout = StateLayout(settings.state_dir.resolve())
    url = base_url(settings)
    if appliance.trust != "development":  # nobody's key lies here to ask with
        print(f"Serving {appliance.model.name} on {url}; the log's public key: {layout.log_vkey}", flush=True)
        return
    ready = Ready(
        url=url,
        model=appliance.model.name,
        keys_file=layout.dev_keys,
        log_key=layout.log_vkey,
        new_keys=appliance.new_keys,
        first=await _first_token(url, appliance.model.name, read_key("developer", layout)),
    )
    print(ready_banner(ready), flush=True)


async def _first_token(url: str, model: str, key: str) -> FirstToken | None:
    """Ask over HTTP with the developer's key, as anyone else would: the whole walk has to work.

    Raises:
        ClientRefused: it does not.
    """
    body = {"model": model, **ASKING, "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    started = time.monotonic()
    after_ms = 0
    pieces: list[str] = []
    async with (
        httpx.AsyncClient(base_url=url, timeout=FIRST_TOKEN_TIMEOUT, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
    ):
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return None
        if response.is_error:
            await response.aread()
            raise ClientRefused(f"the first request failed with {response.status_code}: {response.text}")
        async for line in response.aiter_lines():
            piece = text_of(line)
            if piece and not any(pieces):
                after_ms = round((time.monotonic() - started) * 1000)
            pieces.append(piece)
        if not any(pieces):
            raise ClientRefused("the first request came back without any text; see the operator's log")
        return FirstToken(after_ms, "".join(pieces), response.headers["x-cloister-receipt"])
