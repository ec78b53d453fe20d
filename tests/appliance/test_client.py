"""How the command's client verbs find the appliance."""

from __future__ import annotations

import httpx
import pytest

from appliance.cli.client import base_url
from appliance.settings import Settings


@pytest.mark.parametrize(
    ("host", "url", "peer"),
    [
        ("127.0.0.1", "http://127.0.0.1:8611", "127.0.0.1"),
        ("127.0.0.2", "http://127.0.0.2:8611", "127.0.0.2"),
        ("localhost", "http://localhost:8611", "localhost"),
        ("::1", "http://[::1]:8611", "::1"),
        ("0:0:0:0:0:0:0:1", "http://[::1]:8611", "::1"),
    ],
)
def test_the_client_calls_where_the_appliance_listens(host: str, url: str, peer: str):
    """Every address that may be listened on makes a URL that leads there, and a Host header that is served."""
    settings = Settings(host=host, port=8611)
    assert base_url(settings) == url
    request = httpx.Request("GET", base_url(settings))
    assert (request.url.host, request.url.port) == (peer, 8611)
    assert request.headers["host"].rpartition(":")[0] in settings.served_hosts
