"""The log's benchmark: a small run goes to its end, and its refusal to print what it did not check is real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from audit_log_builder import attacker

from audit.store import create_log
from benchmarks.bench_log import Log, _require_sound
from benchmarks.log_load import SIGNER, by_writers

REPOSITORY = Path(__file__).resolve().parents[2]


def test_one_small_run_prints_every_figure(tmp_path: Path):
    """On SQLite: the row, the ratio that the goal is about, a line for each measure of a large log."""
    command = [sys.executable, "-m", "benchmarks.bench_log", "--folder", str(tmp_path)]
    sizes = ["--rounds", "1", "--seconds", "0.5", "--burst", "256", "--leaves", "512", "--flushes", "3"]
    done = subprocess.run([*command, *sizes], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\n| SQLite | " in done.stdout
    assert "commits at p99 (goal: at most 2)" in done.stdout
    for measure in ("written by 128 writers", "verified: ", "one proof", "one actor and one model", "bytes of log per"):
        assert measure in done.stdout, measure
    assert list(tmp_path.iterdir()) == []


async def test_a_log_that_does_not_verify_ends_the_run(tmp_path: Path):
    """Neither an altered entry nor one too few is measured on."""
    path = tmp_path / "audit.db"
    create_log(path, [SIGNER])
    log = Log(path, path, lambda: 0)
    waits = await by_writers(path, 4, 16)
    _require_sound(log, waits.num_leaves)
    with pytest.raises(SystemExit, match="does not verify"):
        _require_sound(log, waits.num_leaves + 1)
    with attacker(path) as raw:
        raw.execute("UPDATE leaf SET actor = 'other' WHERE idx = 3")
    with pytest.raises(SystemExit, match="does not verify"):
        _require_sound(log, waits.num_leaves)
