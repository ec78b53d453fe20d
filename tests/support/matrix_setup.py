"""What each route is called with, and what must be there before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from matrix_bench import MatrixBench
from walk_bench import SIGNER

from appliance.audit_trail import SYSTEM, Kind
from appliance.keeping.pruning import export_digest
from appliance.replay.circumstances import CIRCUMSTANCES
from audit.export import export_log
from policies.bundle import load_bundle, read_source_bundle

CHAT_PATH = "/v1/chat/completions"
INFER_PATHS = (CHAT_PATH, "/v1/completions")
Prepare = Callable[[MatrixBench], Awaitable[dict[str, Any]]]


async def _nothing(_bench: MatrixBench) -> dict[str, Any]:
    return {}


async def a_request(bench: MatrixBench) -> dict[str, Any]:
    """Record a load and a request; give its index and receipt."""
    trail = bench.walk_bench.trail
    receipt = await trail.append(Kind.MODEL_LOADED, SYSTEM, "c" * 64, dict.fromkeys(CIRCUMSTANCES, "same"))
    bench.walk_bench.walk.model = replace(bench.walk_bench.walk.model, loaded_index=receipt.index)
    async with bench.client("developer") as developer:
        body = {"model": "starter", "prompt": "Once", "max_tokens": 5}
        response = await developer.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    receipt_text = response.headers["x-cloister-receipt"]
    return {"index": receipt_text.partition(":")[0], "receipt": receipt_text}


async def a_hold(bench: MatrixBench) -> dict[str, Any]:
    """Place a hold; give its index."""
    async with bench.client("privacy") as officer:
        response = await officer.post("/audit/holds", json={"subject": "developer", "reason": "case 1"})
    return {"index": response.json()["hold"]}


async def _a_proposal(bench: MatrixBench) -> dict[str, Any]:
    hold = await a_hold(bench)
    async with bench.client("privacy") as officer:
        response = await officer.post(f"/audit/holds/{hold['index']}/release", json={"reason": "case closed"})
    return {"index": response.json()["proposal"]}


async def _a_sealed_request(bench: MatrixBench) -> dict[str, Any]:
    """Record a request whose prompt is sealed."""
    source = {name: text for name, text in read_source_bundle().items() if not name.startswith("tests/")}
    name = "base/20-models.cedar"
    source[name] = source[name].replace(b'@log_level("commitments")', b'@log_level("encrypted")')
    bench.walk_bench.gate._engine = load_bundle(source)
    return await a_request(bench)


async def an_unsealing(bench: MatrixBench, *, approved: bool = False) -> dict[str, Any]:
    """Propose to unseal a sealed request; give the proposal's index, and the request's as `of`."""
    sealed = await _a_sealed_request(bench)
    async with bench.client("auditor") as auditor:
        response = await auditor.post(f"/audit/entries/{sealed['index']}/unseal", json={"reason": "case 1"})
    proposal = response.json()["proposal"]
    if approved:
        async with bench.client("privacy") as officer:
            await officer.post(f"/audit/unsealings/{proposal}/approve")
    return {"index": proposal, "of": sealed["index"]}


async def _an_approved_unsealing(bench: MatrixBench) -> dict[str, Any]:
    return await an_unsealing(bench, approved=True)


async def _a_lower_floor(bench: MatrixBench) -> dict[str, Any]:
    async with bench.client("operator") as operator:
        response = await operator.post("/audit/retention/lower", json=LOWER)
    return {"index": response.json()["proposal"]}


async def _an_export(bench: MatrixBench) -> dict[str, Any]:
    """Export the log; give the body of a proposal to prune contents on it."""
    await a_request(bench)
    folder = bench.appliance.settings.export_dir / "e1"
    export_log(bench.walk_bench.path, folder, SIGNER.verifier)
    digest = export_digest(folder)
    return {"body": {"what": "content", "below": 1, "export": "e1", "digest": digest, "reason": "case 1"}}


async def _a_pruning(bench: MatrixBench) -> dict[str, Any]:
    export = await _an_export(bench)
    async with bench.client("operator") as operator:
        response = await operator.post("/audit/prunings", json=export["body"])
    return {"index": response.json()["proposal"]}


async def _a_pack(bench: MatrixBench) -> dict[str, Any]:
    """Begin an evidence pack; give its id and the body that says it was made."""
    async with bench.client("auditor") as auditor:
        response = await auditor.post("/audit/evidence", json={})
    head = bench.reader.head().checkpoint
    made = {"index_sha256": "0" * 64, "head_size": head.size, "head_root": head.root.hex()}
    return {"id": response.json()["id"], "body": {**made, "num_records": 1, "num_files": 1}}


async def _a_report(_bench: MatrixBench) -> dict[str, Any]:
    return {"id": "R1"}


async def _a_key(bench: MatrixBench) -> dict[str, Any]:
    return {"id": bench.key_ids["developer"]}


async def _a_model(_bench: MatrixBench) -> dict[str, Any]:
    return {"id": "starter"}


LOWER = {"profiles": ["ai-act"], "reason": "case 1"}
REVIEW = {"from": "2026-01-01", "to": "2026-12-31", "outcome": "no_findings", "notes": "read"}
CHAT = {"model": "starter", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 5}
TEXT = {"model": "starter", "prompt": "Once", "max_tokens": 5}
CALLS: Mapping[tuple[str, str], tuple[str, str, Any, Prepare]] = {
    ("POST", "/v1/chat/completions"): ("developer", "auditor", CHAT, _nothing),
    ("POST", "/v1/completions"): ("developer", "auditor", TEXT, _nothing),
    ("GET", "/v1/models"): ("developer", "nobody", None, _nothing),
    ("GET", "/v1/models/{id}"): ("developer", "nobody", None, _a_model),
    ("POST", "/tokenize"): ("developer", "operator", {"model": "starter", "prompt": "Once"}, _nothing),
    ("POST", "/detokenize"): ("developer", "operator", {"model": "starter", "tokens": [40]}, _nothing),
    ("POST", "/add-checkpoint"): ("peer", "developer", None, _nothing),
    ("GET", "/audit/entries"): ("auditor", "developer", None, a_request),
    ("GET", "/audit/entries/{index}"): ("auditor", "developer", None, a_request),
    ("GET", "/audit/entries/{index}/proof"): ("auditor", "developer", None, a_request),
    ("GET", "/audit/checkpoint"): ("auditor", "developer", None, a_request),
    ("GET", "/audit/receipts/{receipt}/proof"): ("developer", "auditor", None, a_request),
    ("POST", "/audit/replays"): ("auditor", "developer", {"prompts": ["Once"]}, a_request),
    ("POST", "/audit/erasures"): ("privacy", "developer", {"subject": "developer", "reason": "case 1"}, a_request),
    ("POST", "/audit/holds"): ("privacy", "developer", {"subject": "developer", "reason": "case 1"}, _nothing),
    ("GET", "/audit/holds"): ("privacy", "developer", None, a_hold),
    ("POST", "/audit/holds/{index}/release"): ("privacy", "developer", {"reason": "case closed"}, a_hold),
    ("POST", "/audit/releases/{index}/approve"): ("auditor", "developer", None, _a_proposal),
    ("POST", "/audit/evidence"): ("auditor", "developer", {}, _nothing),
    ("POST", "/audit/evidence/{id}/made"): ("auditor", "developer", {}, _a_pack),
    ("GET", "/audit/aggregates"): ("auditor", "developer", None, a_request),
    ("POST", "/audit/reports/{id}"): ("auditor", "developer", {}, _a_report),
    ("POST", "/audit/reviews"): ("auditor", "developer", REVIEW, _nothing),
    ("GET", "/audit/reconciliation"): ("auditor", "developer", None, _nothing),
    ("GET", "/audit/status"): ("operator", "developer", None, _nothing),
    ("POST", "/audit/entries/{index}/check"): ("auditor", "developer", {"phase": "prompt", "text": "Once"}, a_request),
    ("POST", "/audit/entries/{index}/unseal"): ("auditor", "developer", {"reason": "case 1"}, _a_sealed_request),
    ("POST", "/audit/unsealings/{index}/approve"): ("privacy", "developer", None, an_unsealing),
    ("POST", "/audit/unsealings/{index}/show"): ("auditor", "developer", None, _an_approved_unsealing),
    ("GET", "/audit/retention"): ("operator", "developer", None, _nothing),
    ("POST", "/audit/retention/lower"): ("operator", "developer", LOWER, _nothing),
    ("POST", "/audit/retention/{index}/approve"): ("privacy", "developer", None, _a_lower_floor),
    ("POST", "/audit/prunings"): ("operator", "developer", {}, _an_export),
    ("POST", "/audit/prunings/{index}/approve"): ("privacy", "developer", None, _a_pruning),
    ("GET", "/metrics"): ("operator", "developer", None, _nothing),
    ("GET", "/keys"): ("operator", "developer", None, _nothing),
    ("POST", "/keys/{id}/revoke"): ("operator", "developer", None, _a_key),
    ("GET", "/openapi.json"): ("developer", "nobody", None, _nothing),
}
"""Role that may, role that may not, body, and what must be there before."""
