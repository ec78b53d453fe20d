"""What a command cannot do is one line and an exit code; a fault of ours keeps its traceback."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import httpx
import pytest
import typer

from appliance.cli.refusals import DONE_NOT, INTEGRITY, WRONG_USAGE, exits_cleanly
from appliance.identity.errors import KeyStoreCorrupt, KeyStoreExposed, KeyStoreMissing, KeyStoreUnusable
from appliance.settings import SettingsRefused
from appliance.text.errors import TemplateRefused, TokenizerRefused
from audit.errors import AuditCorrupt, KeyringUnusable, LogUnusable

PATH = Path("/state/file")

REFUSALS: list[tuple[Exception, int, str]] = [
    (SettingsRefused("CLOISTER_PORT: no"), WRONG_USAGE, "CLOISTER_PORT"),
    (AuditCorrupt(None, "malformed", path=PATH), INTEGRITY, str(PATH)),
    (LogUnusable(PATH, "locked", hint="wait"), DONE_NOT, str(PATH)),
    (KeyringUnusable(PATH, "locked", hint="wait"), DONE_NOT, str(PATH)),
    (KeyStoreMissing("missing", path=PATH, hint="restore"), DONE_NOT, str(PATH)),
    (KeyStoreExposed("exposed", path=PATH, hint="chmod"), DONE_NOT, str(PATH)),
    (KeyStoreUnusable("locked", path=PATH, hint="wait"), DONE_NOT, str(PATH)),
    (KeyStoreCorrupt("malformed", path=PATH, hint="restore"), INTEGRITY, str(PATH)),
    (TokenizerRefused("tokenizer.json", "no"), INTEGRITY, "tokenizer.json"),
    (TemplateRefused("no", line=3), INTEGRITY, "chat_template: line 3"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(PATH)), DONE_NOT, f"{PATH}: Permission denied"),
    (OSError("said without a number"), DONE_NOT, "said without a number"),
    (OSError(), DONE_NOT, "OSError"),
    (httpx.ConnectError("All connection attempts failed"), DONE_NOT, "All connection attempts failed"),
    (httpx.ReadTimeout(""), DONE_NOT, "ReadTimeout"),
]


@pytest.mark.parametrize(("refusal", "exit_code", "named"), REFUSALS, ids=lambda value: type(value).__name__)
def test_a_refusal_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], refusal: Exception, exit_code: int, named: str
):
    """Nothing else is said, and what is said names the culprit."""

    @exits_cleanly
    def command() -> None:
        raise refusal

    with pytest.raises(typer.Exit) as left:
        command()
    assert left.value.exit_code == exit_code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("cloister: ")
    assert named in line


def test_an_address_that_is_not_here_is_the_machines_word(capsys: pytest.CaptureFixture[str]):
    """A real bind to an address of nobody on this machine."""

    @exits_cleanly
    def command() -> None:
        with socket.socket() as listener:
            listener.bind(("192.0.2.1", 0))  # set aside for documentation

    with pytest.raises(typer.Exit) as left:
        command()
    assert left.value.exit_code == DONE_NOT
    assert capsys.readouterr().err == f"cloister: {os.strerror(errno.EADDRNOTAVAIL)}\n"


@pytest.mark.parametrize("fault", [LookupError("a bug"), AssertionError("a bug"), TypeError("a bug")])
def test_a_fault_of_ours_keeps_its_traceback(fault: Exception):
    """It is for us to mend, so its place must be seen."""

    @exits_cleanly
    def command() -> None:
        raise fault

    with pytest.raises(type(fault), match="a bug"):
        command()
