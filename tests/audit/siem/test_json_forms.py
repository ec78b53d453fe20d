from __future__ import annotations

import json

import pytest
from audit_log_builder import make_event
from hypothesis import given
from siem_leaves import ATTACKS, NAME, any_leaf, attacked, exported

from audit.merkle import leaf_hash
from audit.siem.exported import ExportedLeaf
from audit.siem.jsonl import encode_jsonl
from audit.siem.ocsf import encode_ocsf, ocsf_event

REQUIRED = {
    "base": {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"},
    6003: {"actor", "api", "src_endpoint"},
    "metadata": {"product", "version"},
    "api": {"operation"},
    "request": {"uid"},
}
"""OCSF 1.6.0: requirement `required` of the classes and objects that are used."""
KNOWN = {
    "event": {
        *("activity_id", "activity_name", "category_uid", "class_uid", "message", "metadata", "severity"),
        *("severity_id", "status", "status_code", "status_id", "time", "type_uid", "unmapped"),
        *("actor", "api", "http_request", "resources", "src_endpoint"),
    },
    "metadata": {
        *("event_code", "log_name", "log_provider", "product", "sequence", "tenant_uid", "uid", "version"),
    },
    "product": {"name", "vendor_name", "version"},
    "actor": {"user"},
    "user": {"credential_uid", "groups", "name"},
    "api": {"operation", "request", "response"},
    "response": {"error"},
    "src_endpoint": {"ip", "name"},
    "http_request": {"url"},
    "url": {"path"},
}
"""Attribute names of OCSF 1.6.0 that we use of each object; another one would be an invention."""


def check_ocsf(event: dict) -> None:
    """Hold an event against the schema's required attributes, its names and its sums."""
    assert REQUIRED["base"] <= event.keys() <= KNOWN["event"]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["activity_id"] in {0, 1, 2, 3, 4, 99}
    assert (event["activity_id"] == 99) == ("activity_name" in event)
    assert event["severity_id"] in {1, 2, 3, 4, 5}
    assert event["status_id"] in {0, 1, 2}
    assert isinstance(event["time"], int)
    metadata = event["metadata"]
    assert REQUIRED["metadata"] <= metadata.keys() <= KNOWN["metadata"]
    assert metadata["version"] == "1.6.0"
    assert metadata["product"].keys() == KNOWN["product"]
    if event["class_uid"] == 0:
        assert event["category_uid"] == 0
        assert not event.keys() & {"actor", "api", "src_endpoint", "http_request", "resources"}
        return
    assert (event["class_uid"], event["category_uid"]) == (6003, 6)
    assert event.keys() >= REQUIRED[6003]
    assert event["actor"].keys() == KNOWN["actor"]
    assert event["actor"]["user"]["name"]
    assert event["actor"]["user"].keys() <= KNOWN["user"]
    assert REQUIRED["api"] <= event["api"].keys() <= KNOWN["api"]
    assert event["api"]["operation"]
    assert event["api"]["request"]["uid"]
    assert len(event["src_endpoint"].keys() & KNOWN["src_endpoint"]) == len(event["src_endpoint"]) == 1
    assert event.get("http_request", {}).keys() <= KNOWN["http_request"]


@given(any_leaf())
def test_ocsf_events_have_what_the_schema_requires_and_invent_nothing(leaf: ExportedLeaf) -> None:
    """API Activity where the leaf says who called from where, Base Event elsewhere; no fact is lost on the way."""
    line = encode_ocsf(leaf, NAME)
    assert b"\n" not in line
    event = json.loads(line)
    check_ocsf(event)
    assert (event["metadata"]["sequence"], event["metadata"]["uid"]) == (leaf.index, leaf.leaf_hash)
    assert (event["class_uid"] == 6003) == bool(leaf.text_fact("source"))
    said = json.dumps(event, ensure_ascii=False)
    for fact, value in leaf.leaf.event.facts.items():
        assert json.dumps(value, ensure_ascii=False) in said, fact


@pytest.mark.parametrize(
    ("kind", "facts", "activity", "status"),
    [
        ("request:admitted", {"decision": "allow"}, 1, 0),
        ("request:completed", {"outcome": "completed"}, 1, 1),
        ("request:denied", {"decision": "deny"}, 1, 2),
        ("request:failed", {"outcome": "failed"}, 1, 2),
        ("log:read", {"outcome": "completed"}, 2, 1),
        ("keys:listed", {}, 2, 0),
        ("key:revoked", {}, 3, 0),
        ("auth:refused", {}, 99, 2),
    ],
)
def test_calls_have_their_activity_and_outcome(kind: str, facts: dict, activity: int, status: int) -> None:
    """What was done, and whether it worked as far as the leaf says; an admission has not ended yet."""
    base = {"decision": None, "route": None}
    event = ocsf_event(exported(make_event(1, kind, **{**base, **facts}, source="10.0.0.1")), NAME)
    check_ocsf(event)
    assert (event["class_uid"], event["activity_id"], event["status_id"]) == (6003, activity, status)


@pytest.mark.parametrize("kind", ["appliance:started", "engine:died", "model:loaded", "request:abandoned"])
def test_what_was_no_call_is_not_called_one(kind: str) -> None:
    """No caller and no operation are made up for what the appliance did by itself."""
    event = ocsf_event(exported(make_event(1, kind)), NAME)
    check_ocsf(event)
    assert (event["class_uid"], event["type_uid"]) == (0, 99)


@given(any_leaf())
def test_a_native_line_holds_the_bytes_that_were_hashed(leaf: ExportedLeaf) -> None:
    """The hash can be made again from the line alone, byte for byte."""
    line = encode_jsonl(leaf, NAME)
    assert b"\n" not in line
    parsed = json.loads(line)
    assert (parsed["index"], parsed["leaf_hash"], parsed["log"]) == (leaf.index, leaf.leaf_hash, NAME.origin)
    assert leaf.leaf_bytes in line
    assert leaf_hash(leaf.leaf_bytes).hex() == leaf.leaf_hash


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("encode", [encode_jsonl, encode_ocsf])
def test_an_injection_stays_inside_its_string(attack: str, encode) -> None:
    """One JSON object, the hash is ours, whatever the leaf's texts spell."""
    leaf = attacked(ATTACKS[attack])
    found = json.loads(encode(leaf, NAME))
    assert leaf.leaf_hash == (found["leaf_hash"] if "leaf_hash" in found else found["metadata"]["uid"])
