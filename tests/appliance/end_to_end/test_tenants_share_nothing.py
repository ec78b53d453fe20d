"""DESIGN 7, invariant 7: a prefix that one tenant or label has cached is no hit for another, whatever it sends."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from live_appliance import REPOSITORY, LiveAppliance, running_appliance

from appliance.identity.api_keys import Pepper, mint, secret_digest
from appliance.identity.key_store import KeyStore
from appliance.state.development import provision_development
from appliance.state.development_access import TENANT
from appliance.state.development_keys import read_keys
from appliance.state.files import make_folder, write_private
from appliance.state.layout import StateLayout
from appliance.state.opening import newest_approval, open_state, read_approvals
from offline_bundle.approval import ApprovalTerms, open_approvals, sign_approval
from offline_bundle.model_signature import SIGNATURE_NAME, verify_signature
from offline_bundle.trust_root import Role

NEIGHBOUR = "plant-2"
PROMPT = " ".join(f"Pump {number} was checked and its valve was closed." for number in range(12))
NOW = datetime.now(UTC).replace(microsecond=0)


def test_no_line_of_tenant_and_label_hits_another_s_cache(live_pair: tuple[LiveAppliance, dict[str, str]]):
    """The same prompt is computed anew on each line, and is a hit when the same line asks again."""
    appliance, keys = live_pair
    lines = [(tenant, label) for tenant in keys for label in ("0", "1")]
    first = {line: _num_cached(appliance, keys[line[0]], line[1]) for line in lines}
    again = {line: _num_cached(appliance, keys[line[0]], line[1]) for line in lines}
    assert first == dict.fromkeys(lines, 0)
    assert all(again.values()), again


def test_no_field_of_a_request_reaches_another_tenant_s_cache(live_pair: tuple[LiveAppliance, dict[str, str]]):
    """A client that names the other's cache key, user and identifier still computes its own prompt."""
    appliance, keys = live_pair
    claims = {"prompt_cache_key": "shared", "user": "dana", "safety_identifier": "dana"}
    body = {"messages": [{"role": "user", "content": PROMPT + " And the fan?"}], **claims}
    cached = [_ask(appliance, keys[tenant], "/v1/chat/completions", body) for tenant in (TENANT, NEIGHBOUR)]
    assert cached == [0, 0]
    assert _ask(appliance, keys[NEIGHBOUR], "/v1/chat/completions", body) > 0


def _num_cached(appliance: LiveAppliance, key: str, label: str) -> int:
    return _ask(appliance, key, "/v1/completions", {"prompt": PROMPT}, label)


def _ask(appliance: LiveAppliance, key: str, path: str, body: dict, label: str = "0") -> int:
    headers = {"authorization": f"Bearer {key}", "x-cloister-label": label}
    with httpx.Client(base_url=appliance.url, headers=headers, timeout=60, trust_env=False) as client:
        answer = client.post(path, json={"model": "starter", "max_tokens": 1, **body})
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] > 64, "the prompt fills several pages"
    cached: int = usage["prompt_tokens_details"]["cached_tokens"]
    return cached


@pytest.fixture(scope="module")
def live_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveAppliance, dict[str, str]]]:
    """An appliance whose model is approved for two tenants, and a developer's key of each."""
    state_dir: Path = tmp_path_factory.mktemp("tenants") / "state"
    layout = StateLayout(state_dir)
    new_keys = provision_development(layout, REPOSITORY / "models/starter/weights", NOW, secrets.token_bytes).new_keys
    _approve_for_both(layout)
    keys = {TENANT: new_keys["developer"], NEIGHBOUR: _add_neighbour(layout)}
    with running_appliance(state_dir) as appliance:
        yield appliance, keys


def _approve_for_both(layout: StateLayout) -> None:
    """Sign the newest approval again for one tenant more, as its approvers would."""
    trust_root = open_state(layout, NOW).trust_root
    approvers = read_keys(layout, trust_root).approvers
    given = open_approvals(
        read_approvals(layout, "starter"),
        trusted_keys=trust_root.keys_for(Role.MODEL_APPROVER),
        threshold=trust_root.threshold(Role.MODEL_APPROVER),
    )
    signature = (layout.model("starter") / SIGNATURE_NAME).read_bytes()
    assert given.root == verify_signature(signature, trust_root.keys_for(Role.MODEL_SIGNER)).root
    seq = newest_approval(layout, "starter") + 1
    terms = ApprovalTerms(
        **{name: getattr(given, name) for name in ApprovalTerms.__dataclass_fields__ if name not in ("seq", "tenants")},
        seq=seq,
        tenants=(*given.tenants, NEIGHBOUR),
    )
    folder = make_folder(layout.approval("starter", seq))
    for approver in approvers:
        write_private(folder / f"{approver.verifying_key.key_id}.json", sign_approval(terms, approver))


def _add_neighbour(layout: StateLayout) -> str:
    """Add a developer of the same id in the other tenant; give the key."""
    key = mint("dev", secrets.token_bytes)
    pepper = Pepper(layout.pepper.read_bytes())
    store = KeyStore.open(layout.keys_db)
    try:
        (record,) = (one for one in store.list() if one.roles == ("developer",))
        digest = secret_digest(pepper, key.secret)
        store.add(replace(record, id=key.key_id, env=key.env, hmac=digest, tenant=NEIGHBOUR))
    finally:
        store.close()
    return key.unsafe_text
