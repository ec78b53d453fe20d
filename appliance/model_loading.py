"""Verify the model, let the engine load it over verified bytes, and describe what is served."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from contextlib import AsyncExitStack

from appliance.admission import AdmissionDoor
from appliance.audit_trail import SYSTEM, Kind
from appliance.engine_watch import EngineWatch
from appliance.log_opening import OpenLog
from appliance.model_store import VerifiedModel, open_model
from appliance.remembered import require_approval_not_older
from appliance.served_model import ServedModel
from appliance.settings import Settings
from appliance.state.opening import OpenState, read_approvals
from appliance.text.tokenizer import ModelTokenizer
from appliance.text_build import text_build
from audit.event import JsonValue, Receipt
from engine.config import EngineConfig
from engine.health import EngineInfo
from engine.service import EngineService


async def load_model(
    settings: Settings,
    state: OpenState,
    log: OpenLog,
    door: AdmissionDoor,
    now: dt.datetime,
    closing: AsyncExitStack,
) -> tuple[EngineService, ServedModel]:
    """Start the engine on the approved model, recorded as `model:loaded`; `closing` stops it.

    Raises:
        ModelRefused, StateCorrupt, EngineLoadError: names what is at fault; nothing of the model is used.
    """
    folder, approvals = state.layout.model(settings.model), read_approvals(state.layout, settings.model)
    verified = await asyncio.to_thread(open_model, folder, state.trust_root, approvals, now)
    await asyncio.to_thread(
        require_approval_not_older,
        log.reader,
        state.layout.approvals(settings.model),
        settings.model,
        verified.approval.seq,
    )
    tokenizer = ModelTokenizer(verified.files, nonce=secrets.token_hex(16))
    watch = EngineWatch(log.trail, door, log.counters)
    engine = EngineService(
        _engine_config(settings, verified), stall_limit_s=settings.stall_limit_s, on_change=watch.on_change
    )
    log.counters.follow(engine.stats)
    closing.push_async_callback(watch.close)
    closing.push_async_callback(engine.stop, 0.0)
    loaded = await engine.start()
    facts = _model_facts(settings, verified, loaded)
    receipt = await log.trail.append(Kind.MODEL_LOADED, SYSTEM, verified.manifest.root, facts)
    return engine, _served_model(settings, verified, loaded, tokenizer, now, receipt)


def _engine_config(settings: Settings, verified: VerifiedModel) -> EngineConfig:
    return EngineConfig(
        model_dir=str(verified.folder),
        file_digests=verified.engine_digests,
        dtype=settings.dtype,
        page_size=settings.page_size,
        kv_memory_bytes=settings.kv_memory_bytes,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_sequences=settings.max_num_sequences,
        max_queue_len=settings.max_queue_len,
        num_threads=settings.engine_threads,
    )


def _served_model(
    settings: Settings,
    verified: VerifiedModel,
    loaded: EngineInfo,
    tokenizer: ModelTokenizer,
    now: dt.datetime,
    receipt: Receipt,
) -> ServedModel:
    return ServedModel(
        name=verified.name,
        root=verified.manifest.root,
        approved_until_us=int(dt.datetime.fromisoformat(verified.approval.expires_at).timestamp() * 1e6),
        max_label=verified.approval.max_label,
        tenants=verified.approval.tenants,
        tokenizer=tokenizer,
        max_model_len=loaded.max_model_len,
        max_queue_len=settings.max_queue_len,
        vocab_size=loaded.vocab_size,
        dtype=loaded.dtype,
        quantization=loaded.quantization,
        engine_build=loaded.engine_build,
        created_s=int(now.timestamp()),
        loaded_index=receipt.index,
    )


def _model_facts(settings: Settings, verified: VerifiedModel, loaded: EngineInfo) -> dict[str, JsonValue]:
    return {
        "model": verified.name,
        "signer": verified.manifest.signer,
        "approvers": list(verified.approval.approvers),
        "approval_seq": verified.approval.seq,
        "num_files": len(verified.manifest.files),
        "num_weight_bytes": loaded.weight_bytes,
        "dtype": loaded.dtype,
        "quantisation": loaded.quantization,
        "engine_build": loaded.engine_build,
        "text_build": text_build(),
        "torch": loaded.torch_version,
        "processor": loaded.processor,
        "num_threads": loaded.num_threads,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "max_model_len": loaded.max_model_len,
        "num_pages": loaded.num_pages,
        "page_size": loaded.page_size,
    }
