"""How the command's client verbs find the appliance and a key.

The key comes from CLOISTER_API_KEY, or, under development trust only, from `dev/keys.json` of the state folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Literal

import httpx

from appliance.settings import Settings, read_settings
from appliance.state.layout import StateLayout

Role = Literal["developer", "operator", "auditor"]
TIMEOUT = httpx.Timeout(10.0, read=120.0)


class ClientRefused(Exception):
    """The appliance did not do what was asked; the message says why and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ApplianceClient:
    """One role's view of a running appliance."""

    def __init__(self, role: Role, settings: Settings | None = None) -> None:
        settings = settings or read_settings()
        self.layout = StateLayout(settings.state_dir)
        self.url = os.environ.get("CLOISTER_URL", base_url(settings))
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {read_key(role, self.layout)}"},
            timeout=TIMEOUT,
            trust_env=False,
        )

    def get(self, path: str, **query: str | int) -> httpx.Response:
        """GET a path of the appliance.

        Raises:
            ClientRefused: not reachable, or answered with an error.
        """
        return self._checked(lambda: self._http.get(path, params=query))

    def post(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """POST JSON to a path of the appliance; raises as `get` does."""
        return self._checked(lambda: self._http.post(path, json=body))

    def stream_chat(self, body: dict[str, Any]) -> Iterator[str | httpx.Headers]:
        """POST a streamed chat completion: first the headers, then the text as it comes."""
        with self._http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                self._raise(response)
            yield response.headers
            for line in response.iter_lines():
                yield text_of(line)

    def _checked(self, send: Any) -> httpx.Response:  # noqa: ANN401 - a bound httpx call
        try:
            response: httpx.Response = send()
        except httpx.TransportError as failure:
            raise ClientRefused(f"no appliance answers at {self.url}: start one by `make serve`") from failure
        if response.is_error:
            self._raise(response)
        return response

    def _raise(self, response: httpx.Response) -> None:
        error = response.json()["error"]
        exit_code = 3 if response.status_code == httpx.codes.FORBIDDEN else 1
        raise ClientRefused(f"{response.status_code} {error['code']}: {error['message']}", exit_code)


def base_url(settings: Settings) -> str:
    """Give the address at which an appliance with these settings answers."""
    return f"http://{settings.url_host}:{settings.port}"


def text_of(line: str) -> str:
    """Give the new text in one line of a streamed chat completion; other lines have none.

    Raises:
        ClientRefused: the line says that the answer was given up.
    """
    if not line.startswith("data: ") or line == "data: [DONE]":
        return ""
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise ClientRefused(chunk["error"]["message"])
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def read_key(role: Role, layout: StateLayout) -> str:
    """Give the API key to use.

    Raises:
        ClientRefused: there is none.
    """
    given = os.environ.get("CLOISTER_API_KEY")
    if given:
        return given
    try:
        keys: dict[str, str] = json.loads(layout.dev_keys.read_text())
    except FileNotFoundError:
        raise ClientRefused("set CLOISTER_API_KEY; the state folder holds no development keys", 2) from None
    return keys[role]
