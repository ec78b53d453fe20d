"""A log with a known story, as decoded entries: two orderly runs, a crash, requests of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from appliance.reports.scope import Scope
from audit.entry import Entry
from audit.event import Event
from audit.leaf import Place, decode_leaf, draft_leaf
from audit.merkle import leaf_hash

START_US = 1_793_491_200_000_000
"""2026-11-01T00:00:00Z."""
SECOND_US = 1_000_000
MODEL, POLICY = "ab" * 32, "cd" * 32


@dataclass
class Story:
    """Tells one event after the other; the wall clock can be set, the monotonic one cannot."""

    entries: list[Entry] = field(default_factory=list)
    wall_us: int = START_US
    monotonic_ns: int = 5_000_000_000
    place: Place = field(default_factory=lambda: Place("node-1", "boot-1", 1))

    def pass_time(self, seconds: int) -> None:
        """Let both clocks go on."""
        self.wall_us += seconds * SECOND_US
        self.monotonic_ns += seconds * 1_000_000_000

    def restart(self) -> None:
        """Open the log again, after a boot."""
        epoch = self.place.epoch + 1
        self.place = Place("node-1", f"boot-{epoch}", epoch)
        self.monotonic_ns = 5_000_000_000

    def tell(self, kind: str, subject: str = "appliance", *, actor: str = "system", role: str = "", **facts) -> int:
        """Append one event a second later; give its index."""
        self.pass_time(1)
        if actor != "system":
            facts = {"source": "10.1.2.3", "key_id": "key-1", **facts}
        tenant = "" if actor == "system" else "plant"
        appended = Event(kind, self.wall_us, self.monotonic_ns, actor, role, tenant, subject, facts)
        index = len(self.entries)
        leaf_bytes = draft_leaf(appended, self.place).encode(index, index)
        self.entries.append(Entry(index, decode_leaf(leaf_bytes), leaf_bytes, leaf_hash(leaf_bytes)))
        return index

    def start(self) -> None:
        """Begin a run as the appliance does."""
        self.tell("appliance:started", version="0.1.0")
        self.tell("policy:loaded", POLICY, seq=self.place.epoch)
        self.tell("model:loaded", MODEL, dtype="float32")

    def request(self, name: str, end: str | None = "completed", **facts) -> int:
        """Admit a request and end it; None: it has no end."""
        admitted = self.tell(
            "request:admitted",
            name,
            actor="dana",
            role="developer",
            decision="allow",
            model_root=MODEL,
            policy_digest=POLICY,
            prompt_tokens=10,
        )
        if end is not None:
            ended = {"admitted_index": admitted, "outcome": end, "prompt_tokens": 10, "completion_tokens": 5}
            self.tell(f"request:{end}", name, actor="dana", role="developer", total_ms=100, **{**ended, **facts})
        return admitted


def told() -> Story:
    """The sound story: 2 runs ended in order, one crash whose request the next start abandoned."""
    story = Story()
    story.start()
    story.request("req-1")
    story.request("req-2", "failed", code="queue_full")
    story.tell("request:denied", "req-3", actor="omar", role="operator", decision="deny", outcome="denied")
    story.tell("request:refused", "req-4", actor="dana", role="developer", outcome="refused", code="bad_value")
    for number in range(3):
        story.tell("auth:refused", f"req-a{number}", reason="unknown_key", source="10.9.9.9", num_suppressed=number)
    story.tell(
        "log:read", "req-5", actor="avery", role="auditor", what="entries", filter="kind=x:y", query_sha256="0" * 64
    )
    story.tell("appliance:stopped")
    story.pass_time(600)
    story.restart()
    story.start()
    admitted = story.request("req-6", end=None)
    story.pass_time(300)
    story.restart()
    story.tell("appliance:started", version="0.1.1")
    story.tell("request:abandoned", "req-6", admitted_index=admitted, outcome="abandoned")
    story.tell("policy:loaded", POLICY, seq=2)
    story.tell("model:loaded", MODEL, dtype="float32")
    story.request("req-7", "cancelled")
    story.tell("engine:died", "engine", exit_code=-9)
    story.tell("engine:recovered", "engine", restarts=1)
    story.tell("appliance:stopped")
    return story


def scope_of(entries: Sequence[Entry], **changes) -> Scope:
    """Everything that was told."""
    size = entries[-1].index + 1
    whole = Scope(START_US, START_US + 86_400 * SECOND_US, size, 0, size - 1)
    return replace(whole, **changes)
