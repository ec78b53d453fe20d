"""A perimeter whose every answer is held against the two laws of the log as it goes out, and calls that drive it.

Law 1: a piece of an answer that the client gets has its admission on disk by then.
Law 2: what says that an answer is finished has its terminal leaf on disk by then.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgi_call import AsgiCall
from perimeter_bench import PerimeterBench
from walk_bench import SIGNER

from appliance.audit_trail import PAIRING, Kind
from appliance.settings import Settings

TEXT_GIVEN = rb'"(?:content|text)": ?"[^"]'
END_TOLD = rb'"finish_reason": ?"|\[DONE\]'
SETTINGS = Settings(max_body_bytes=2048)


@dataclass
class Caller:
    """What a call is made of, before its mode changes some of it."""

    method: str
    path: str
    role: str
    denied_role: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""


class MatrixBench(PerimeterBench):
    """A perimeter whose every answer is held against the two laws as it goes out."""

    def __init__(self, folder: Path, settings: Settings = SETTINGS) -> None:
        state, exports = folder / "state", folder / "exports"
        (state / "log").mkdir(parents=True)
        (state / "log" / "verifier.vkey").write_text(SIGNER.verifier.vkey + "\n")
        (state / "log" / "verifier.vkey").chmod(0o600)
        exports.mkdir()
        super().__init__(folder, settings=settings.model_copy(update={"state_dir": state, "export_dir": exports}))
        self.sink = self.walk_bench.sink
        self.engine = self.walk_bench.engine
        self.base = 0
        """Size of the log when the call began."""

    def call(self, caller: Caller, *, role: str | None = "its own") -> AsgiCall:
        """Begin a call without its body."""
        credential = self.headers(caller.role if role == "its own" else role)
        kind = {} if caller.body is None else {"content-type": "application/json"}
        made = AsgiCall(
            self.application,
            caller.method,
            caller.path,
            {**credential, **kind, **caller.headers},
            query=caller.query,
            on_answer=self._hold_to_the_laws,
        )
        return made.start()

    def ask(self, caller: Caller, **changes: Any) -> AsgiCall:
        """Begin a call with its whole body."""
        call = self.call(caller, **changes)
        return call.say(b"" if caller.body is None else json.dumps(caller.body).encode(), more=False)

    def leaves(self) -> tuple[str, ...]:
        """Everything the log holds since the call began, as cells tell it."""
        return tuple(_told(entry.leaf.event) for entry in self.reader.tail(1000) if entry.index >= self.base)

    def _hold_to_the_laws(self, call: AsgiCall, piece: bytes) -> None:
        if call.status != 200 or not piece:
            return
        kinds = [leaf.split()[0] for leaf in self.leaves()]
        if re.search(TEXT_GIVEN, piece):
            assert kinds[:1] == [PAIRING.opening], f"{piece!r} went out with {kinds}"
        if re.search(END_TOLD, piece):
            assert set(kinds[-1:]) & PAIRING.terminals, f"{piece!r} went out with {kinds}"


def _told(event: Any) -> str:
    facts = event.facts
    why = facts.get("code")
    if event.kind == Kind.REQUEST_DENIED:
        why = facts["reason"]
    elif event.kind == Kind.REPLAY_ENDED and why is None:
        why = facts["reason"] or facts["verdict"]
    return " ".join(str(part) for part in (event.kind, facts.get("outcome"), why) if part)
