"""Settings: unknown names and unusable values stop the start, and say which and why."""

from __future__ import annotations

import pytest

from appliance.settings import Settings, SettingsRefused, read_settings


def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    """A misspelt setting must not silently mean the default."""
    monkeypatch.setenv("CLOISTER_PROT", "1")
    with pytest.raises(SettingsRefused, match="unknown setting CLOISTER_PROT"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOISTER_PORT", "0"),
        ("CLOISTER_PORT", "eighty"),
        ("CLOISTER_HOST", "0.0.0.0"),
        ("CLOISTER_HOST", "example.org"),
        ("CLOISTER_HOST", "::1%lo"),
        ("CLOISTER_DTYPE", "int4"),
        ("CLOISTER_MAX_BODY_BYTES", "-1"),
        ("CLOISTER_BODY_DEADLINE_S", "nan"),
    ],
)
def test_an_unusable_value_names_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    """A bad value is a refusal that names the variable; a bind that is not loopback needs TLS, which is not there."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefused, match=name):
        read_settings()


def test_a_value_arrives(monkeypatch: pytest.MonkeyPatch):
    """What is set is what is read, also by lists."""
    monkeypatch.setenv("CLOISTER_PORT", "9000")
    monkeypatch.setenv("CLOISTER_ALLOWED_HOSTS", '["plant.example"]')
    settings = read_settings()
    assert settings.port == 9000
    assert settings.allowed_hosts == ("plant.example",)


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("0:0::1", "[::1]"), ("localhost", "localhost")]
)
def test_the_listening_address_is_always_a_served_host(host: str, name: str):
    """An address that may be listened on is answered under its own name, whatever the list of other names says."""
    assert name in Settings(host=host).served_hosts
    assert Settings(host=host, allowed_hosts=("Plant.Example",)).served_hosts == {"plant.example", name}


def test_no_other_host_is_served():
    """The list is what it was, in lower case."""
    assert Settings().served_hosts == {"localhost", "127.0.0.1", "[::1]"}
    assert "127.0.0.1" not in Settings(host="127.0.0.2", allowed_hosts=()).served_hosts
