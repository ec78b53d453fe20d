"""Refusals of every kind become one line on standard error and an exit code; faults of ours keep their traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import httpx
import typer

from appliance.cli.client import ClientRefused
from appliance.identity.errors import KeyStoreCorrupt, KeyStoreError
from appliance.model_store import ModelRefused
from appliance.server import PortBusy
from appliance.settings import SettingsRefused
from appliance.state.errors import StateCorrupt, StateError
from appliance.text.errors import TokenizerRefused
from audit.errors import AuditCorrupt, AuditError, ProofRefused
from engine.errors import EngineLoadError
from offline_bundle.errors import TrustError
from policies.errors import PolicyError

P = ParamSpec("P")
DONE_NOT, WRONG_USAGE, INTEGRITY = 1, 2, 4
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SettingsRefused, WRONG_USAGE),
    (PortBusy, DONE_NOT),
    (AuditCorrupt, INTEGRITY),
    (ProofRefused, INTEGRITY),
    (AuditError, DONE_NOT),
    (ModelRefused, INTEGRITY),
    (TrustError, INTEGRITY),
    (PolicyError, INTEGRITY),
    (EngineLoadError, INTEGRITY),
    (StateCorrupt, INTEGRITY),
    (StateError, DONE_NOT),
    (KeyStoreCorrupt, INTEGRITY),
    (KeyStoreError, DONE_NOT),
    (TokenizerRefused, INTEGRITY),
    (httpx.HTTPError, DONE_NOT),
    (OSError, DONE_NOT),  # an address, a disk or a permission: the machine's word, whoever asked for it
)
"""First match wins, so the narrower class stands first."""


def exits_cleanly(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a command refuses into a message and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ClientRefused as refusal:
            leave(str(refusal), refusal.exit_code)
        except tuple(kind for kind, _ in EXIT_CODES) as refusal:
            leave(said(refusal), next(code for kind, code in EXIT_CODES if isinstance(refusal, kind)))

    return wrapped


def said(refusal: BaseException) -> str:
    """Give the refusal's own words; those of the machine and of HTTP are put into a line that has some."""
    match refusal:
        case OSError(strerror=str(reason)):
            return reason if refusal.filename is None else f"{refusal.filename}: {reason}"
        case httpx.HTTPError():
            return f"the appliance could not be asked: {str(refusal) or type(refusal).__name__}"
    return str(refusal) or type(refusal).__name__


def leave(message: str, exit_code: int) -> NoReturn:
    """Say why, and end with the code."""
    print(f"cloister: {message}", file=sys.stderr)
    raise typer.Exit(exit_code)
