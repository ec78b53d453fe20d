"""The label that a caller declared is found again by the auditor, whatever became of the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from perimeter_bench import PerimeterBench
from walk_bench import AUDITOR, WalkBench, completion

from appliance.errors import BadRequest, Forbidden
from audit.reader import EntryFilter


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """One walk on a real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


async def test_a_label_finds_the_admission_the_refusal_and_the_denial(bench: WalkBench):
    """Label 0 is a label; and no other label finds them."""
    await bench.walk.admit(bench.asking("admitted"), completion())
    await bench.recorder.refusal(bench.asking("refused"), BadRequest("no", code="bad"))
    with pytest.raises(Forbidden):
        await bench.walk.admit(bench.asking("denied", AUDITOR), completion())
    await bench.recorder.refusal(replace(bench.asking("other"), label=3), BadRequest("no", code="bad"))
    await bench.walk.drain(5)
    found = {
        label: [(entry.leaf.event.subject, entry.leaf.event.kind) for entry in page.entries]
        for label in ("0", "3", "4")
        for page in [bench.reader.entries(EntryFilter(label=label))]
    }
    assert found == {
        "0": [
            ("admitted", "request:admitted"),
            ("refused", "request:refused"),
            ("denied", "request:denied"),
        ],
        "3": [("other", "request:refused")],
        "4": [],
    }


@pytest.mark.parametrize(
    ("role", "body", "kind"),
    [
        ("developer", {"model": "starter", "prompt": "Once", "max_tokens": 1}, "request:completed"),
        ("developer", {"model": "starter", "prompt": "Once", "no_such_field": 1}, "request:refused"),
        ("developer", {"model": "nobody", "prompt": "Once"}, "request:refused"),
        ("auditor", {"model": "starter", "prompt": "Once"}, "request:denied"),
    ],
)
async def test_the_header_s_label_stands_in_the_record(tmp_path: Path, role: str, body: dict, kind: str):
    """Over HTTP: what `x-cloister-label` said is what the auditor finds, whatever became of the request."""
    bench = PerimeterBench(tmp_path)
    async with bench.client(role) as client:
        answer = await client.post("/v1/completions", json=body, headers={"x-cloister-label": "2"})
    entries = bench.reader.entries(EntryFilter(subject=answer.headers["x-request-id"])).entries
    bench.close()
    assert entries[-1].leaf.event.kind == kind
    assert entries[0].leaf.event.facts["label"] == "2"
