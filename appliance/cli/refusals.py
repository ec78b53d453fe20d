"""Refusals of every kind become one line on standard error and an exit code; faults of ours keep their traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from appliance.cli.client import ClientRefused
from appliance.model_store import ModelRefused
from appliance.server import PortBusy
from appliance.settings import SettingsRefused
from appliance.state.errors import StateCorrupt, StateError
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
            leave(str(refusal), next(code for kind, code in EXIT_CODES if isinstance(refusal, kind)))

    return wrapped


def leave(message: str, exit_code: int) -> None:
    """Say why, and end with the code."""
    print(f"cloister: {message}", file=sys.stderr)
    raise typer.Exit(exit_code)
