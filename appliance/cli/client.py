"""How the command's client verbs find the appliance and a key.

The key comes from CLOISTER_API_KEY, or, under development trust only, from `dev/keys.json` of the state folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import httpx

from appliance.settings import Settings, read_settings
from appliance.state.layout import StateLayout

_WRONG_USAGE, _REFUSED = 2, 3  # `refusals` imports this module
Role = Literal["developer", "operator", "auditor", "privacy", "peer"]
READ_TIMEOUT_S = 120.0


class ClientRefused(Exception):
    """The appliance did not do what was asked; the message says why and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ApplianceClient:
    """One role's view of a running appliance."""

    def __init__(self, role: Role, settings: Settings | None = None, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        settings = settings or read_settings()
        self.layout = StateLayout(settings.state_dir)
        self.url = os.environ.get("CLOISTER_URL", base_url(settings))
        headers = {"authorization": f"Bearer {read_key(role, self.layout)}"}
        try:
            timeout = httpx.Timeout(10.0, read=read_timeout_s)
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)
        except httpx.InvalidURL as error:
            raise ClientRefused(f"CLOISTER_URL is no address: {error}", _WRONG_USAGE) from error

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
        except UnicodeError as error:  # a host that no name can be
            raise ClientRefused(f"CLOISTER_URL is no address: {self.url}", _WRONG_USAGE) from error
        if response.is_error:
            self._raise(response)
        if not _is_of_an_appliance(response):
            raise self._stranger(response)
        return response

    def _raise(self, response: httpx.Response) -> NoReturn:
        try:
            error = response.json()["error"]
            said = f"{response.status_code} {error['code']}: {error['message']}"
        except (ValueError, LookupError, TypeError) as misread:  # not JSON, or not of our form
            raise self._stranger(response) from misread
        raise ClientRefused(said, _REFUSED if response.status_code == httpx.codes.FORBIDDEN else 1)

    def _stranger(self, response: httpx.Response) -> ClientRefused:
        return ClientRefused(
            f"what answers at {self.url} is no appliance: it said {response.status_code}, not in our form"
        )


def _is_of_an_appliance(response: httpx.Response) -> bool:
    """Tell by the id that every answer carries, and by its form: plain text, or one JSON object."""
    if "x-request-id" not in response.headers:
        return False
    if response.headers.get("content-type", "").startswith("text/plain"):
        return True
    try:
        return isinstance(response.json(), dict)
    except ValueError:
        return False


def base_url(settings: Settings) -> str:
    """Give the address at which an appliance with these settings answers."""
    return f"http://{settings.url_host}:{settings.port}"


def text_of(line: str) -> str:
    """Give the new text in one line of a streamed chat completion; other lines have none.

    Raises:
        ClientRefused: the line says that the answer was given up, or is none of an appliance.
    """
    if not line.startswith("data: ") or line == "data: [DONE]":
        return ""
    try:
        chunk = json.loads(line.removeprefix("data: "))
        if "error" not in chunk:
            return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        given_up = str(chunk["error"]["message"])
    except (ValueError, LookupError, TypeError, AttributeError) as misread:
        raise ClientRefused("a line of the answer is not of an appliance's form") from misread
    raise ClientRefused(given_up)


def read_key(role: Role, layout: StateLayout) -> str:
    """Give the API key to use.

    Raises:
        ClientRefused: there is none, or what stands in its place can be none.
    """
    given = os.environ.get("CLOISTER_API_KEY")
    if given:
        return _key_in(given, "CLOISTER_API_KEY", _WRONG_USAGE)
    try:
        keys = json.loads(layout.dev_keys.read_bytes())
    except FileNotFoundError:
        raise ClientRefused("set CLOISTER_API_KEY; the state folder holds no development keys", _WRONG_USAGE) from None
    except ValueError as error:  # not UTF-8, or not JSON
        raise ClientRefused(f"{layout.dev_keys} is not JSON; set CLOISTER_API_KEY") from error
    return _key_in(keys.get(role) if isinstance(keys, dict) else None, f"{layout.dev_keys} for the {role}", 1)


def _key_in(found: object, place: str, exit_code: int) -> str:
    """Refuse what no header can carry, without saying it."""
    if not isinstance(found, str) or not found.isascii() or not found.isprintable() or " " in found or not found:
        raise ClientRefused(f"there is no API key in {place}", exit_code)
    return found
