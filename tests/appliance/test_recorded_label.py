"""The label that a caller declared is found again by the auditor, whatever became of the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
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
