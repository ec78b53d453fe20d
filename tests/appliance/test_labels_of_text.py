"""A text goes through a model's tokenizer only up to the label that the model and the caller may see."""

from __future__ import annotations

from pathlib import Path

import pytest
from perimeter_bench import PerimeterBench

from audit.reader import EntryFilter

BODIES = {
    "/tokenize": {"prompt": "Once"},
    "/detokenize": {"tokens": [70, 71]},
    "/v1/completions": {"model": "starter", "prompt": "Once", "max_tokens": 1},
}


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_a_label_above_what_may_be_seen_is_denied_with_a_record(tmp_path: Path, path: str):
    """At the caller's and the model's label the text is taken; one above it is denied, and the record says by what."""
    bench = PerimeterBench(tmp_path)
    async with bench.client("developer") as client:
        allowed = await client.post(path, json=BODIES[path], headers={"x-cloister-label": "2"})
        denied = await client.post(path, json=BODIES[path], headers={"x-cloister-label": "3"})
    entries = bench.reader.entries(EntryFilter(subject=denied.headers["x-request-id"])).entries
    bench.close()
    assert allowed.status_code == 200, allowed.text
    assert (denied.status_code, denied.json()["error"]["code"]) == (403, "forbidden")
    assert [entry.leaf.event.kind for entry in entries] == ["request:denied"]
    assert entries[0].leaf.event.facts["policy_ids"] == ["label-within-clearance", "label-within-model"]
    assert entries[0].leaf.event.facts["label"] == "3"
