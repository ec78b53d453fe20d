"""The operator's log on a disk that is full: lines are lost and counted, nothing fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from appliance.logs import LineSink


def _line(sink: LineSink, text: str) -> None:
    print(text, file=sink, flush=True)


def test_a_line_that_cannot_be_written_is_counted_and_the_next_one_says_so(tmp_path: Path):
    """A full device refuses every write; once writing works again, the first line tells how many are missing."""
    if not Path("/dev/full").exists():
        pytest.skip("a device that is always full needs /dev/full")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    sink = LineSink(descriptor)
    _line(sink, "one")
    _line(sink, "two")
    assert sink.num_lost == 2
    target = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(target, descriptor)
    _line(sink, "three")
    _line(sink, "four")
    os.close(target)
    os.close(descriptor)
    lost, *rest = (tmp_path / "log").read_text().splitlines()
    assert json.loads(lost) == {"event": "log_lines_lost", "num_lines": 2, "level": "error"}
    assert rest == ["three", "four"]


def test_a_reader_that_is_gone_costs_its_lines_alone(tmp_path: Path):
    """A closed pipe, and text that is no UTF-8, are no faults of whoever logs."""
    reading, writing = os.pipe()
    os.close(reading)
    sink = LineSink(writing)
    _line(sink, "one \ud800")
    os.close(writing)
    assert sink.num_lost == 1
    kept = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    _line(LineSink(kept), "half a pair: \ud800")
    os.close(kept)
    assert (tmp_path / "log").read_text() == "half a pair: \\ud800\n"
