"""The real engine process over a real, tiny model: verified, loaded, asked, killed, verified again."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from scripted_service import read, sockets_of, tokens
from tiny_llama import TinyShape, engine_config, load_transformers, oracle_greedy, save_tiny_llama

from engine.errors import EngineLoadError
from engine.request import GenerationRequest, SamplingParams
from engine.service import EngineService
from engine.supervision import RestartPolicy

PROMPTS = ([5, 6, 7], [11, 12, 13, 14, 15, 16, 17, 18, 19], [40, 2, 33])


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A seeded random Llama; a test that changes it works on a copy."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder, TinyShape())
    return folder


def greedy(request_id, prompt, num_tokens):
    """A request whose answer the oracle knows."""
    return GenerationRequest(request_id, tuple(prompt), SamplingParams(max_tokens=num_tokens, temperature=0.0))


async def test_answers_are_the_oracles_before_and_after_a_kill(model_dir):
    """Concurrent greedy answers equal transformers' token for token, from the first process and from its successor."""
    oracle = load_transformers(model_dir)
    expected = [oracle_greedy(oracle, prompt, 12) for prompt in PROMPTS]
    changes = asyncio.Queue()
    service = EngineService(
        engine_config(model_dir), restart=RestartPolicy(first_delay_s=0.0), on_change=changes.put_nowait
    )
    try:
        engine_info = await service.start()
        answers = []
        for turn in ("before", "after"):
            handles = [service.submit(greedy(f"{turn}{n}", prompt, 12)) for n, prompt in enumerate(PROMPTS)]
            answers.append([tokens(await read(handle)) for handle in handles])
            os.kill(service.health().pid, 9)
            while (await changes.get()).state != "restarting":
                pass
        stats = service.stats()
    finally:
        await service.stop(0.0)
    assert answers == [expected, expected]
    assert (engine_info.vocab_size, engine_info.max_model_len) == (97, 256)
    assert len(bytes.fromhex(engine_info.engine_build)) == 32
    assert stats.num_output_tokens == 2 * 3 * 12


async def test_kill_under_load_loses_no_request(model_dir):
    """More requests than may run: after kill -9 each ends once, in full or as engine_died."""
    service = EngineService(engine_config(model_dir, max_num_sequences=2), restart=RestartPolicy(first_delay_s=0.0))
    try:
        await service.start()
        handles = [service.submit(greedy(f"r{n}", PROMPTS[n % 3], 200)) for n in range(6)]
        for handle in handles[:2]:
            await anext(handle)
        os.kill(service.health().pid, 9)
        ends = [(await read(handle))[-1] for handle in handles]
        health = service.health()
    finally:
        await service.stop(0.0)
    assert [end.error for end in ends[:2]] == ["engine_died"] * 2
    assert [end.finish for end in ends[2:]] == ["length"] * 4
    assert (health.restarts, health.last_exit.detail) == (1, "SIGKILL")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
async def test_changed_byte_stops_the_load(tmp_path, name):
    """A byte that differs from the signed one is found by the process that would use it, and the file is named."""
    save_tiny_llama(tmp_path, TinyShape())
    config = engine_config(tmp_path)
    changed = bytearray((tmp_path / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / name).write_bytes(changed)
    with pytest.raises(EngineLoadError) as failure:
        await EngineService(config).start()
    assert failure.value.file == name
    assert failure.value.hint


async def test_refusal_of_the_core_reaches_its_request(model_dir):
    """A prompt that is too long ends with the core's code; the process serves on, over its one Unix socket."""
    service = EngineService(engine_config(model_dir))
    try:
        await service.start()
        (refused,) = await read(service.submit(greedy("long", [1] * 300, 1)))
        (outside,) = await read(service.submit(greedy("outside", [97], 1)))
        good = await read(service.submit(greedy("good", PROMPTS[0], 3)))
        assert service.health().restarts == 0
        sockets, internet_sockets = sockets_of(service.health().pid)
    finally:
        await service.stop(0.0)
    assert (refused.error, outside.error) == ("prompt_too_long", "token_out_of_vocabulary")
    assert good[-1].finish == "length"
    assert len(sockets) == 1
    assert not sockets & internet_sockets


async def test_a_process_that_makes_no_step_is_replaced(model_dir):
    """A frozen process is killed past the stall limit; what it had not begun is answered by its successor."""
    service = EngineService(engine_config(model_dir), restart=RestartPolicy(first_delay_s=0.0), stall_limit_s=3.0)
    try:
        await service.start()
        expected = tokens(await read(service.submit(greedy("before", PROMPTS[0], 6))))
        os.kill(service.health().pid, signal.SIGSTOP)
        answer = tokens(await read(service.submit(greedy("frozen", PROMPTS[0], 6))))
        last_exit = service.health().last_exit
    finally:
        await service.stop(0.0)
    assert answer == expected
    assert last_exit is not None
    assert last_exit.code == "stalled"
