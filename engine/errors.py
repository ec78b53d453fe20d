"""What the engine's service can refuse or fail with, split by who must act.

EngineError
├── EngineLoadError       the operator: this model cannot be served as it lies there
├── EngineStopped         the caller: nothing is taken now; the state says why
├── QueueFull             the caller: try again later
└── RequestRefused        inside the engine process: becomes that request's last event

`engine.weights.errors.LoadError` crosses the wire and arrives here as `EngineLoadError`.
Errors of one request are no exceptions: they are that request's last `StepEvent`, with a stable code.  An engine
process that dies is no exception either: it is an `EngineExit` in the health, and the service restarts it.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything the service raises."""


class EngineLoadError(EngineError):
    """The engine process could not load the model."""

    def __init__(self, file: str, reason: str, hint: str) -> None:
        super().__init__(f"the engine could not load {file or 'the model'}: {reason} ({hint})")
        self.file = file
        """Name inside the model folder; empty when no single file is at fault."""
        self.reason = reason
        self.hint = hint
        """What the operator does about it."""


class EngineStopped(EngineError):
    """The service takes no requests in its present state."""

    def __init__(self, state: str) -> None:
        super().__init__(f"the engine takes no requests: it is {state}")
        self.state = state


class QueueFull(EngineError):
    """As many requests wait as may wait."""

    def __init__(self, num_waiting: int) -> None:
        super().__init__(f"{num_waiting} requests wait already")
        self.num_waiting = num_waiting


class RequestRefused(EngineError):
    """This request can never be served, whatever else runs; nothing of it was kept."""

    def __init__(self, code: str, hint: str = "") -> None:
        super().__init__(f"{code}: {hint}" if hint else code)
        self.code = code
        """Stable; `engine.intake` lists them."""
        self.hint = hint
        """What the caller does about it; names fields and numbers, never quotes a prompt."""
