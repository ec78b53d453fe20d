"""`POST /add-checkpoint` over the real perimeter: C2SP tlog-witness's statuses, whose key may ask, what is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from anchored_logs import Tree, numbered
from audit_log_builder import SIGNER
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from perimeter_bench import PerimeterBench

from appliance.anchors.witnessing import Witnessing
from appliance.api.routes import ROUTES
from appliance.api.routing import Perimeter, RouteTable
from audit.anchoring.submission import Submission
from audit.anchoring.witness import Witness
from audit.checkpoint import LogSigner
from audit.cosignature import Cosigner, cosignatures_of

COSIGNER = Cosigner("w.example/one", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
TREE = Tree(numbered(40))
FORK = Tree(numbered(40, changed=5))
AT_S = 1_763_964_000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PerimeterBench]:
    """An appliance that witnesses one log."""
    made = PerimeterBench(tmp_path)
    witness = Witness(tmp_path / "witness", COSIGNER, [SIGNER.verifier], now_s=lambda: AT_S)
    made.appliance = replace(made.appliance, witnessing=Witnessing(witness))
    made.application = Perimeter(made.appliance, RouteTable(ROUTES))
    yield made
    made.close()


def submission(old_size: int, size: int, tree: Tree = TREE) -> str:
    """What a log sends."""
    return Submission(old_size, tuple(tree.prove(old_size, size)), tree.head(size).note).to_text()


async def send(bench: PerimeterBench, text: str | bytes, role: str | None = "peer") -> httpx.Response:
    """Send as somebody."""
    async with bench.client(role) as client:
        return await client.post("/add-checkpoint", content=text)


def kinds(bench: PerimeterBench) -> list[tuple[str, str]]:
    """What the log heard of it."""
    events = [entry.leaf.event for entry in bench.reader.entries(limit=1000).entries]
    return [(event.kind, event.subject) for event in events if event.kind.startswith("witness:")]


async def test_a_head_that_extends_is_cosigned_and_only_the_first_is_recorded(bench: PerimeterBench) -> None:
    """Else two appliances that witness one another would make each other's logs grow for ever."""
    for old, new in ((0, 7), (7, 33), (33, 33), (33, 40)):
        answer = await send(bench, submission(old, new))
        assert answer.status_code == 200, answer.text
        [cosignature] = cosignatures_of(TREE.head(new).note + answer.text, [COSIGNER.verifier])
        assert cosignature.at_s == AT_S
    assert kinds(bench) == [("witness:enrolled", SIGNER.name)]
    assert bench.reader.head().checkpoint.size == 1


async def test_each_refusal_has_the_status_of_the_protocol(bench: PerimeterBench) -> None:
    """And a 409 its body; none of them but a fork is recorded."""
    stranger = Tree(numbered(9), [LogSigner.from_seed("stranger.example", bytes(32))])
    other_key = Tree(numbered(9), [LogSigner.from_seed(SIGNER.name, b"\x0f" * 32)])
    assert (await send(bench, submission(0, 7))).status_code == 200
    for text, status, code in (
        ("nonsense", 400, "malformed_submission"),
        (b"\xff\xfe", 400, "invalid_utf8"),
        (submission(0, 3, stranger), 404, "unknown_log"),
        (submission(7, 9, other_key), 403, "log_signature_refused"),
    ):
        answer = await send(bench, text)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    for text in (submission(3, 9), submission(0, 40)):
        conflict = await send(bench, text)
        assert (conflict.status_code, conflict.text) == (409, "7\n")
        assert conflict.headers["content-type"].partition(";")[0] == "text/x.tlog.size"
    assert kinds(bench) == [("witness:enrolled", SIGNER.name)]


async def test_a_fork_is_refused_kept_and_recorded_once(bench: PerimeterBench, tmp_path: Path) -> None:
    """The record names the file that proves it, and the answer carries the record's receipt."""
    await send(bench, submission(0, 7))
    forked = await send(bench, submission(7, 9, FORK))
    assert (forked.status_code, forked.json()["error"]["code"]) == (422, "inconsistent_checkpoint")
    assert forked.headers["x-cloister-receipt"].startswith("1:")
    assert (await send(bench, submission(7, 9, FORK))).status_code == 422
    assert (await send(bench, submission(7, 7, FORK))).status_code == 409
    assert kinds(bench) == [("witness:enrolled", SIGNER.name)] + [("witness:refused", SIGNER.name)] * 2
    facts = bench.reader.entry(1).leaf.event.facts
    assert (tmp_path / "witness" / str(facts["evidence"])).read_text() == submission(7, 9, FORK)
    assert facts["root"] == FORK.head(9).checkpoint.root.hex()


@pytest.mark.parametrize("role", ["auditor", "developer", "operator", "privacy"])
async def test_no_other_role_may_ask(bench: PerimeterBench, role: str) -> None:
    """Denied by policy, and nothing is cosigned."""
    assert (await send(bench, submission(0, 7), role)).status_code == 403
    assert (await send(bench, submission(0, 7))).status_code == 200


async def test_without_a_key_nobody_is_answered_and_with_it_nothing_else_opens(bench: PerimeterBench) -> None:
    """The one way in that a peer has."""
    assert (await send(bench, submission(0, 7), None)).status_code == 401
    async with bench.client("peer") as peer:
        for path in ("/audit/checkpoint", "/audit/entries", "/metrics", "/v1/models", "/openapi.json"):
            assert (await peer.get(path)).status_code == 403, path


async def test_a_state_that_cannot_be_relied_on_is_503(bench: PerimeterBench, tmp_path: Path) -> None:
    """Damaged, and lost though the log remembers it."""
    await send(bench, submission(0, 7))
    [state] = (tmp_path / "witness").glob("*.checkpoint")
    state.write_text("damaged")
    answer = await send(bench, submission(7, 9))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "witness_not_ready")


async def test_an_appliance_that_witnesses_nobody_says_so(tmp_path: Path) -> None:
    """404, to a peer."""
    bench = PerimeterBench(tmp_path)
    answer = await send(bench, submission(0, 7))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "witness_disabled")
    bench.close()
