"""The benchmark itself: it runs both arms to the end, and its arithmetic is right."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arms import Times, Transcript, run_streams
from benchmarks.load import LoadRequest
from benchmarks.table import Row, goal_lines, histogram_quantile, quantile

REPOSITORY = Path(__file__).resolve().parents[2]


def test_one_small_run_prints_both_arms_and_every_goal():
    """A tiny shape goes through the whole run: a real appliance, the engine alone, a verified log, one table."""
    command = [sys.executable, "-m", "benchmarks.bench_serving", "--shape", "tiny", "--dtype", "float32"]
    sizes = [
        "--streams",
        "3",
        "--rounds",
        "2",
        "--min-requests",
        "3",
        "--per-stream",
        "2",
        "--short-requests",
        "4",
        "--scale",
        "32",
    ]
    done = subprocess.run([*command, *sizes], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("|")[1:4] for line in lines if "appliance |" in line or "alone |" in line] == [
        [" 1 stream, short ", " 4 ", " appliance "],
        [" 1 stream, short ", " 4 ", " engine alone "],
        [" 3 streams ", " 12 ", " appliance "],
        [" 3 streams ", " 12 ", " engine alone "],
    ]
    assert any(line.startswith("1 stream, short: TTFT p99") and "undecided (under 100" in line for line in lines)
    assert any(line.startswith("3 streams: throughput") for line in lines)


def _times(ttft_s, tokens, wall_s):
    return Times(ttft_s=ttft_s, itl_s=[0.01], num_output=tokens, wall_s=wall_s)


def _row(**changes):
    figures = {"http_ttft_s": 0.1009, "http_wall_s": 10.4, "kv_waste": 0.039, "is_short": False, **changes}
    return Row(
        name="row",
        streams=8,
        is_short=figures["is_short"],
        http=(_times([figures["http_ttft_s"]] * 100, 1000, figures["http_wall_s"]),),
        engine=(_times([0.1] * 100, 1000, 10.0),),
        kv_waste=figures["kv_waste"],
        prefix_hit=0.5,
        commit_p99_s=0.0005,
        two_appends_s=0.001,
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (_row(is_short=True), ["met"]),
        (_row(is_short=True, http_ttft_s=0.1011), ["MISSED"]),
        (_row(), ["met", "met"]),
        (_row(http_wall_s=10.6), ["MISSED", "met"]),
        (_row(kv_waste=0.04), ["met", "MISSED"]),
        (_row(kv_waste=None), ["met", "undecided"]),
    ],
)
def test_a_goal_missed_is_called_missed(row, said):
    """Each goal turns on its own figure: two commits of TTFT, 95 % of throughput, under 4 % of KV memory."""
    (line,) = goal_lines([row])
    assert [part.rsplit(" ", 1)[1] for part in line.split(";")] == said


def test_a_stream_is_understood_however_its_bytes_were_cut():
    """Tokens are counted at the time of the piece that completes their line; an error event is not a token."""
    chunks = ('{"choices":[{"text":"a"}]}', '{"choices":[{"text":"b"}]}', '{"choices":[]}', "[DONE]")
    stream = "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()
    for cut in range(1, len(stream)):
        transcript = Transcript(0.0, [(1.0, stream[:cut]), (2.0, stream[cut:])])
        assert sum(count for _, count in transcript.tokens()) == 2
    assert Transcript(0.0, [(1.0, b"HTTP/1.1 200 OK\r\nX-Cloister-Receipt: 7:ab\r\n\r\n")]).receipt() == "7:ab"
    with pytest.raises(AssertionError, match="429"):
        Transcript(0.0, [(1.0, b"HTTP/1.1 429 Too Many Requests\r\n\r\n{}")]).receipt()
    with pytest.raises(AssertionError, match="lost"):
        list(Transcript(0.0, [(1.0, b'data: {"error":"lost"}\n\n')]).tokens())


async def test_tokens_that_come_together_have_no_time_between_them():
    """Three tokens in two pieces: one first token, two gaps, the sum counted."""
    stream = b"HTTP/1.1 200 OK\r\nx-cloister-receipt: 7:ab\r\n\r\n" + b'data: {"choices":[{"text":"a"}]}\n\n' * 2
    third = b'data: {"choices":[{"text":"b"}]}\n\n'

    async def ask(_number, _request, times):
        times.transcripts.append(Transcript(1.0, [(1.5, stream), (2.0, third)]))

    times = await run_streams((LoadRequest((1,), 3),), 1, ask)
    assert (times.ttft_s, times.itl_s, times.num_output) == ([0.5], [0.0, 0.5], 3)


def test_quantiles_are_those_of_the_order_and_of_the_buckets():
    """The 99th of a hundred values is the last; within a bucket the quantile is linear."""
    assert quantile(list(range(100)), 0.99) == 99
    assert quantile(list(range(100)), 0.5) == 50
    assert histogram_quantile({0.001: 0, 0.002: 50, 0.004: 100, float("inf"): 100}, 0.75) == pytest.approx(0.003)
    assert histogram_quantile({0.001: 90, float("inf"): 100}, 0.99) == 0.001
