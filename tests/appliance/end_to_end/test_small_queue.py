"""A queue shorter than what one request may ask for: told by name what never fits, and served what does."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_appliance import running_appliance


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_an_n_above_the_queue_is_refused_by_name(small_queue, path: str):
    """With room for two, n = 3 is 400 naming `n` with a record, however idle the engine is; n = 2 is answered."""
    prompt = {"prompt": "Pump"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "Pump"}]}
    body = {"model": "starter", "max_tokens": 2, **prompt}
    with small_queue.client("developer") as developer, small_queue.client("auditor") as auditor:
        refused = developer.post(path, json={**body, "n": 3})
        assert refused.status_code == 400, refused.text
        assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("bad_value", "n")
        query = {"subject": refused.headers["x-request-id"]}
        (record,) = auditor.get("/audit/entries", params=query).json()["data"]
        assert record["entry"]["kind"] == "request:refused"
        assert record["entry"]["facts"]["param"] == "n"
        answered = developer.post(path, json={**body, "n": 2})
        assert answered.status_code == 200, answered.text
        assert len(answered.json()["choices"]) == 2


@pytest.fixture(scope="module")
def small_queue(tmp_path_factory: pytest.TempPathFactory):
    """An appliance in which two sequences may wait."""
    state_dir: Path = tmp_path_factory.mktemp("small") / "state"
    with running_appliance(state_dir, CLOISTER_MAX_QUEUE_LEN="2") as appliance:
        yield appliance
