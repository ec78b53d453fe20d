"""What each route is called with, and what must be there before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from matrix_bench import MatrixBench

from appliance.audit_trail import SYSTEM, Kind
from appliance.replay.circumstances import CIRCUMSTANCES

CHAT_PATH = "/v1/chat/completions"
INFER_PATHS = (CHAT_PATH, "/v1/completions")
Prepare = Callable[[MatrixBench], Awaitable[dict[str, Any]]]


async def _nothing(_bench: MatrixBench) -> dict[str, Any]:
    return {}


async def _a_request(bench: MatrixBench) -> dict[str, Any]:
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


async def _a_key(bench: MatrixBench) -> dict[str, Any]:
    return {"id": bench.key_ids["developer"]}


async def _a_model(_bench: MatrixBench) -> dict[str, Any]:
    return {"id": "starter"}


CHAT = {"model": "starter", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 5}
TEXT = {"model": "starter", "prompt": "Once", "max_tokens": 5}
CALLS: Mapping[tuple[str, str], tuple[str, str, Any, Prepare]] = {
    ("POST", "/v1/chat/completions"): ("developer", "auditor", CHAT, _nothing),
    ("POST", "/v1/completions"): ("developer", "auditor", TEXT, _nothing),
    ("GET", "/v1/models"): ("developer", "nobody", None, _nothing),
    ("GET", "/v1/models/{id}"): ("developer", "nobody", None, _a_model),
    ("POST", "/tokenize"): ("developer", "operator", {"model": "starter", "prompt": "Once"}, _nothing),
    ("POST", "/detokenize"): ("developer", "operator", {"model": "starter", "tokens": [40]}, _nothing),
    ("GET", "/audit/entries"): ("auditor", "developer", None, _a_request),
    ("GET", "/audit/entries/{index}"): ("auditor", "developer", None, _a_request),
    ("GET", "/audit/entries/{index}/proof"): ("auditor", "developer", None, _a_request),
    ("GET", "/audit/checkpoint"): ("auditor", "developer", None, _a_request),
    ("GET", "/audit/receipts/{receipt}/proof"): ("developer", "auditor", None, _a_request),
    ("POST", "/audit/replays"): ("auditor", "developer", {"prompts": ["Once"]}, _a_request),
    ("POST", "/audit/erasures"): ("privacy", "developer", {"subject": "developer", "reason": "case 1"}, _a_request),
    ("POST", "/audit/holds"): ("privacy", "developer", {"subject": "developer", "reason": "case 1"}, _nothing),
    ("GET", "/audit/holds"): ("privacy", "developer", None, a_hold),
    ("POST", "/audit/holds/{index}/release"): ("privacy", "developer", {"reason": "case closed"}, a_hold),
    ("POST", "/audit/releases/{index}/approve"): ("auditor", "developer", None, _a_proposal),
    ("GET", "/metrics"): ("operator", "developer", None, _nothing),
    ("GET", "/keys"): ("operator", "developer", None, _nothing),
    ("POST", "/keys/{id}/revoke"): ("operator", "developer", None, _a_key),
    ("GET", "/openapi.json"): ("developer", "nobody", None, _nothing),
}
"""Role that may, role that may not, body, and what must be there before."""
