"""Trust roots: pinned first, chained after, separated duties throughout."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from offline_bundle.dsse import parse_envelope, sign_envelope
from offline_bundle.errors import (
    DocumentRefused,
    Expired,
    SignatureRefused,
    ThresholdNotMet,
    TrustError,
    TrustRootRefused,
)
from offline_bundle.keys import SigningKey
from offline_bundle.trust_root import (
    PAYLOAD_TYPE,
    Role,
    RoleKeys,
    open_next_root,
    open_root_chain,
    sign_trust_root,
    unsafe_fingerprint,
)

HOLDERS = {
    Role.MODEL_APPROVER: (("alice", "bob", "carol"), 2),
    Role.MODEL_SIGNER: (("maker",), 1),
    Role.POLICY_SIGNER: (("officer",), 1),
    Role.RELEASE: (("r1", "r2", "r3"), 2),
    Role.ROOT: (("root-1", "root-2", "root-3"), 2),
}


@pytest.fixture
def make_root(make_key: Callable[[str], SigningKey]) -> Callable[..., bytes]:
    """A production root with one's own changes."""

    def make_root(
        *,
        version: int = 1,
        trust: str = "production",
        expires_at: str = "2031-01-01T00:00:00Z",
        holders: dict | None = None,
        signed_by: tuple[str, ...] = ("root-1", "root-2"),
    ) -> bytes:
        roles = {
            role: RoleKeys(
                tuple(sorted((make_key(name).verifying_key for name in names), key=lambda key: key.key_id)), threshold
            )
            for role, (names, threshold) in {**HOLDERS, **(holders or {})}.items()
        }
        return sign_trust_root(
            version=version, trust=trust, expires_at=expires_at, roles=roles, signers=[make_key(n) for n in signed_by]
        )

    return make_root


def test_pinned_root_opens_with_its_roles(
    make_root: Callable[..., bytes], make_key: Callable[[str], SigningKey], now: datetime
) -> None:
    """Keys and thresholds by role, as they were signed."""
    raw = make_root()
    root = open_root_chain([raw], unsafe_fingerprint(raw), now)
    assert (root.version, root.trust, root.fingerprint) == (1, "production", unsafe_fingerprint(raw))
    for role, (names, threshold) in HOLDERS.items():
        assert {key.key_id for key in root.keys_for(role)} == {make_key(name).verifying_key.key_id for name in names}
        assert root.threshold(role) == threshold


def test_fingerprint_may_come_from_paper(make_root: Callable[..., bytes], now: datetime) -> None:
    """Groups, colons and capitals are how people write it down."""
    raw = make_root()
    digits = unsafe_fingerprint(raw).upper()
    spaced = " ".join(digits[start : start + 4] for start in range(0, 64, 4)) + "\n"
    coloned = ":".join(digits[start : start + 2] for start in range(0, 64, 2))
    assert open_root_chain([raw], spaced, now) == open_root_chain([raw], coloned, now)


@pytest.mark.parametrize("pin", ["", "0" * 64, "0" * 63, "../../etc/passwd"])
def test_any_other_fingerprint_is_refused(make_root: Callable[..., bytes], now: datetime, pin: str) -> None:
    """A whole, well-signed root of somebody else changes nothing."""
    with pytest.raises(TrustRootRefused):
        open_root_chain([make_root()], pin, now)


def test_no_root_at_all_is_refused(now: datetime) -> None:
    """Trust never starts from nothing."""
    with pytest.raises(TrustRootRefused, match="there is none"):
        open_root_chain([], "0" * 64, now)


def test_pinned_root_still_needs_its_own_threshold(make_root: Callable[..., bytes], now: datetime) -> None:
    """The fingerprint fixes the bytes, the signatures that their holders agreed."""
    raw = make_root(signed_by=("root-1",))
    with pytest.raises(ThresholdNotMet):
        open_root_chain([raw], unsafe_fingerprint(raw), now)


def test_edited_stored_root_is_refused(make_root: Callable[..., bytes], now: datetime) -> None:
    """Lowering a threshold in the file changes the fingerprint; keeping the old pin refuses it."""
    raw = make_root()
    body = json.loads(parse_envelope(raw, "root").payload)
    body["roles"]["model-signer"]["key_ids"] = body["roles"]["root"]["key_ids"][:1]
    edited = json.loads(raw)
    edited["payload"] = base64.b64encode(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).decode()
    with pytest.raises(TrustError):
        open_root_chain([json.dumps(edited).encode()], unsafe_fingerprint(raw), now)


def test_next_root_signed_by_old_and_new_threshold_follows(make_root: Callable[..., bytes], now: datetime) -> None:
    """Rotation: two of the three old root keys leave, new ones come."""
    first = make_root()
    new_holders = {Role.ROOT: (("root-3", "root-4", "root-5"), 2)}
    second = make_root(version=2, holders=new_holders, signed_by=("root-1", "root-2", "root-4", "root-5"))
    third = make_root(version=3, holders=new_holders, signed_by=("root-4", "root-5"))
    root = open_root_chain([first, second, third], unsafe_fingerprint(first), now)
    assert root.version == 3


@pytest.mark.parametrize(
    "signed_by",
    [("root-4", "root-5"), ("root-1", "root-2"), ("root-1", "root-4"), ("root-1", "root-4", "root-5")],
    ids=["new keys only", "old keys only", "one of each", "too few of the old"],
)
def test_next_root_needs_the_old_threshold_and_its_own(
    make_root: Callable[..., bytes], now: datetime, signed_by: tuple[str, ...]
) -> None:
    """Neither the leaving nor the coming holders can turn the key alone."""
    first = make_root()
    second = make_root(version=2, holders={Role.ROOT: (("root-4", "root-5", "root-6"), 2)}, signed_by=signed_by)
    with pytest.raises(ThresholdNotMet):
        open_root_chain([first, second], unsafe_fingerprint(first), now)


@pytest.mark.parametrize("version", [1, 3, 9])
def test_versions_leave_no_gap_and_never_go_back(make_root: Callable[..., bytes], now: datetime, version: int) -> None:
    """A well-signed root at the wrong place is refused."""
    first = make_root()
    with pytest.raises(TrustRootRefused, match="cannot follow"):
        open_root_chain([first, make_root(version=version)], unsafe_fingerprint(first), now)


@pytest.mark.parametrize(("before", "after"), [("development", "production"), ("production", "development")])
def test_trust_never_changes_its_kind(make_root: Callable[..., bytes], now: datetime, before: str, after: str) -> None:
    """Development keys cannot grow into production, nor the reverse."""
    first = make_root(trust=before)
    with pytest.raises(TrustRootRefused, match="cannot become"):
        open_root_chain([first, make_root(version=2, trust=after)], unsafe_fingerprint(first), now)


def test_only_the_newest_root_must_not_be_expired(make_root: Callable[..., bytes], now: datetime) -> None:
    """An old chain can be walked; a frozen one cannot be lived on."""
    first = make_root(expires_at="2029-01-01T00:00:00Z")
    second = make_root(version=2)
    pin = unsafe_fingerprint(first)
    assert open_root_chain([first, second], pin, now).version == 2
    with pytest.raises(Expired):
        open_root_chain([first], pin, now)
    with pytest.raises(Expired):
        open_root_chain([first, second], pin, now + timedelta(days=3650))


def test_forged_signature_of_a_root_holder_is_refused(make_root: Callable[..., bytes], now: datetime) -> None:
    """Beside enough good ones, a bad one by a known key is still refused."""
    envelope = json.loads(make_root(signed_by=("root-1", "root-2", "root-3")))
    envelope["signatures"][0]["sig"] = envelope["signatures"][1]["sig"]
    raw = json.dumps(envelope).encode()
    with pytest.raises(SignatureRefused):
        open_root_chain([raw], unsafe_fingerprint(raw), now)


@pytest.mark.parametrize(
    "holders",
    [
        {Role.MODEL_APPROVER: (("alice", "maker"), 2)},
        {Role.RELEASE: (("officer", "r2"), 2)},
        {Role.ROOT: (("maker",), 1)},
        {Role.MODEL_APPROVER: (("alice",), 1)},
        {Role.MODEL_APPROVER: (("alice", "bob"), 1)},
        {Role.MODEL_APPROVER: (("alice", "bob"), 3)},
        {Role.RELEASE: (("r1", "r2"), 1)},
        {Role.MODEL_SIGNER: (("maker", "second"), 2)},
        {Role.POLICY_SIGNER: (("officer",), 0)},
        {Role.ROOT: ((), 1)},
    ],
    ids=str,
)
def test_root_that_does_not_separate_duties_is_never_made(make_root: Callable[..., bytes], holders: dict) -> None:
    """One key for two duties, a single approver, an impossible or empty threshold."""
    with pytest.raises(DocumentRefused):
        make_root(holders=holders)


def test_role_without_keys_means_nobody(make_root: Callable[..., bytes], now: datetime) -> None:
    """It can be said, and then no signature ever counts."""
    raw = make_root(holders={Role.RELEASE: ((), 2)})
    assert open_root_chain([raw], unsafe_fingerprint(raw), now).keys_for(Role.RELEASE) == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.update(version=0),
        lambda b: b.update(version=True),
        lambda b: b.update(trust="test"),
        lambda b: b.update(expires_at="soon"),
        lambda b: b.update(extra=1),
        lambda b: b["roles"].update(janitor={"key_ids": [], "threshold": 1}),
        lambda b: b["roles"].pop("release"),
        lambda b: b["roles"]["release"].update(key_ids=["0" * 64]),
        lambda b: b["roles"]["release"].update(key_ids=list(reversed(b["roles"]["release"]["key_ids"]))),
        lambda b: b["roles"]["release"].update(key_ids=b["roles"]["release"]["key_ids"][:1] * 2),
        lambda b: b["roles"]["release"].update(extra=1),
        lambda b: b["keys"].update({"0" * 64: next(iter(b["keys"].values()))}),
        lambda b: b["keys"].update({next(iter(b["keys"])): 7}),
        lambda b: b["keys"].update(
            {next(iter(b["keys"])): "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}
        ),
    ],
)
def test_malformed_root_is_refused_though_pinned_and_signed(
    make_root: Callable[..., bytes],
    make_key: Callable[[str], SigningKey],
    now: datetime,
    spoil: Callable[[dict], object],
) -> None:
    """Even its own holders cannot make the verifier guess."""
    body = json.loads(parse_envelope(make_root(), "root").payload)
    spoil(body)
    payload = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    raw = sign_envelope(PAYLOAD_TYPE, payload, [make_key("root-1"), make_key("root-2")])
    with pytest.raises(DocumentRefused):
        open_root_chain([raw], unsafe_fingerprint(raw), now)


def test_document_of_another_type_is_no_root(make_key: Callable[[str], SigningKey], now: datetime) -> None:
    """The type is part of what is signed."""
    raw = sign_envelope("application/vnd.in-toto+json", b"{}", [make_key("root-1")])
    with pytest.raises(DocumentRefused, match="type"):
        open_root_chain([raw], unsafe_fingerprint(raw), now)


def test_next_root_alone_says_nothing_about_expiry(make_root: Callable[..., bytes], now: datetime) -> None:
    """A walk may pass through an expired root; the caller judges the last."""
    first = make_root()
    root = open_root_chain([first], unsafe_fingerprint(first), now)
    assert open_next_root(root, make_root(version=2, expires_at="2001-01-01T00:00:00Z")).version == 2
