"""Open Cybersecurity Schema Framework 1.6.0: API Activity (6003), and Base Event (0) for what was no call.  Pure.

A leaf that says where its caller sat (`source`) came over the API and is API Activity.  What the appliance did by
itself has neither caller nor operation; calling it API Activity would be an invention, so it leaves as Base Event.
`metadata.sequence` is the index, `metadata.uid` the leaf hash.  Facts without a place in the schema stand in
`unmapped`, whole.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TypeAlias

from audit.event import JsonValue
from audit.siem.exported import ExportedLeaf, LogName
from audit.siem.severity import severity_of

OCSF_VERSION = "1.6.0"
API_ACTIVITY, APPLICATION_CATEGORY = 6003, 6
BASE_EVENT, UNCATEGORIZED = 0, 0
_CREATE, _READ, _UPDATE, _OTHER = 1, 2, 3, 99
_UNKNOWN, _SUCCESS, _FAILURE = 0, 1, 2
_STATUS_CAPTION = {_UNKNOWN: "Unknown", _SUCCESS: "Success", _FAILURE: "Failure"}
_SEVERITY_CAPTION = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_ACTIVITY_OF_ACTION = {"read": _READ, "listed": _READ, "revoked": _UPDATE}
_FAILED_ACTIONS = frozenset({"denied", "failed", "refused", "cancelled", "abandoned", "died", "halted", "failing"})
_SUCCESS_WORDS = frozenset({"completed", "allow", "allowed", "approved"})
_FAILURE_WORDS = frozenset({"failed", "cancelled", "abandoned", "refused", "deny", "denied"})
_PLACED = {BASE_EVENT: frozenset({"code"}), API_ACTIVITY: frozenset({"code", "key_id", "route", "source"})}
"""Facts that stand word for word in an attribute of the class; all others go to `unmapped`."""

Json: TypeAlias = "dict[str, JsonValue]"


def encode_ocsf(exported: ExportedLeaf, name: LogName) -> bytes:
    """Give one event as JSON, without a newline."""
    event = ocsf_event(exported, name)
    return json.dumps(event, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def ocsf_event(exported: ExportedLeaf, name: LogName) -> Json:
    """Map one leaf."""
    source = exported.text_fact("source")
    if source is None:
        return {**_class_of(BASE_EVENT, UNCATEGORIZED, _OTHER, exported), **_common(exported, name, BASE_EVENT)}
    subject, _, action = exported.leaf.event.kind.partition(":")
    activity = _CREATE if subject == "request" else _ACTIVITY_OF_ACTION.get(action, _OTHER)
    return {
        **_class_of(API_ACTIVITY, APPLICATION_CATEGORY, activity, exported),
        **_common(exported, name, API_ACTIVITY),
        "actor": {"user": _user(exported)},
        "api": _api(exported),
        "src_endpoint": {"ip" if _is_address(source) else "name": source},
        **_what_was_asked(exported),
    }


def _class_of(class_uid: int, category_uid: int, activity_id: int, exported: ExportedLeaf) -> Json:
    named: Json = {"activity_name": exported.leaf.event.kind} if activity_id == _OTHER else {}
    return {
        "activity_id": activity_id,
        **named,
        "category_uid": category_uid,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity_id,
    }


def _common(exported: ExportedLeaf, name: LogName, class_uid: int) -> Json:
    event, place = exported.leaf.event, exported.leaf.place
    severity = severity_of(event.kind).ocsf
    status = _status(exported)
    code = exported.text_fact("code")
    return {
        "message": event.kind,
        "metadata": {
            "event_code": event.kind,
            "log_name": name.origin,
            "log_provider": "cloister",
            "product": {"name": "Cloister", "vendor_name": "Cloister", "version": name.version},
            "sequence": exported.index,
            "tenant_uid": event.tenant,
            "uid": exported.leaf_hash,
            "version": OCSF_VERSION,
        },
        "severity": _SEVERITY_CAPTION[severity],
        "severity_id": severity,
        "status": _STATUS_CAPTION[status],
        "status_id": status,
        **({} if code is None else {"status_code": code}),
        "time": event.ts_us // 1_000,
        "unmapped": {
            **{
                fact: value
                for fact, value in event.facts.items()
                if fact not in _PLACED[class_uid] or exported.text_fact(fact) is None
            },
            "actor": event.actor,
            "boot_id": place.boot_id,
            "epoch": place.epoch,
            "node_id": place.node_id,
            "subject": event.subject,
            "ts_us": event.ts_us,
        },
    }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _user(exported: ExportedLeaf) -> Json:
    event = exported.leaf.event
    roles = [role for role in event.role.split(",") if role]
    key_id = exported.text_fact("key_id")
    return {
        "name": event.actor,
        **({"groups": [{"name": role} for role in roles]} if roles else {}),
        **({} if key_id is None else {"credential_uid": key_id}),
    }


def _api(exported: ExportedLeaf) -> Json:
    event, code = exported.leaf.event, exported.text_fact("code")
    failed = _status(exported) == _FAILURE
    return {
        "operation": exported.text_fact("route") or event.kind,
        "request": {"uid": event.subject or exported.leaf_hash},
        **({"response": {"error": code}} if failed and code is not None else {}),
    }


def _what_was_asked(exported: ExportedLeaf) -> Json:
    route, root = exported.text_fact("route"), exported.text_fact("model_root")
    asked: Json = {}
    if route is not None:
        asked["http_request"] = {"url": {"path": route}}
    if root is not None:
        asked["resources"] = [{"name": exported.text_fact("model") or root, "type": "model", "uid": root}]
    return asked


def _status(exported: ExportedLeaf) -> int:
    """Success or failure where the leaf says so; an admission has no outcome yet."""
    word = exported.text_fact("outcome") or exported.text_fact("decision") or ""
    action = exported.leaf.event.kind.partition(":")[2]
    if action == "admitted":
        return _UNKNOWN
    if word in _FAILURE_WORDS or action in _FAILED_ACTIONS:
        return _FAILURE
    return _SUCCESS if word in _SUCCESS_WORDS else _UNKNOWN
