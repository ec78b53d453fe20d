"""Approvals: who, how many, about what, until when."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from offline_bundle.approval import ApprovalTerms, open_approvals, sign_approval, verify_approvals
from offline_bundle.dsse import IN_TOTO, parse_envelope, sign_envelope
from offline_bundle.errors import DocumentRefused, Expired, SignatureRefused, ThresholdNotMet
from offline_bundle.keys import SigningKey
from offline_bundle.statement import encode_statement

ROOT = "ab" * 32
TERMS = ApprovalTerms(
    name="granite-8b",
    version="1.2",
    seq=3,
    root=ROOT,
    origin="https://example.org/granite@0123",
    licence="Apache-2.0",
    intended_use="summaries of incident notes",
    excluded_use="decisions about people",
    max_label=2,
    tenants=("plant", "works"),
    expires_at="2030-06-30T00:00:00Z",
    evaluation_sha256="cd" * 32,
)


@pytest.fixture
def approvers(make_key: Callable[[str], SigningKey]) -> list[SigningKey]:
    """Three people who may approve; two are needed."""
    return [make_key(f"approver-{number}") for number in range(3)]


@pytest.fixture
def verify(approvers: list[SigningKey], now: datetime) -> Callable:
    """Verify with two of three."""
    trusted = [key.verifying_key for key in approvers]

    def verify(envelopes, *, root=ROOT, at=now):
        return verify_approvals(envelopes, trusted_keys=trusted, threshold=2, root=root, now=at)

    return verify


def test_enough_approvers_over_the_same_terms_approve(approvers: list[SigningKey], verify: Callable) -> None:
    """Every field comes out as it was signed, with the distinct signers."""
    approval = verify([sign_approval(TERMS, key) for key in approvers[:2]])
    for name in TERMS.__slots__:
        assert getattr(approval, name) == getattr(TERMS, name)
    assert approval.approvers == tuple(sorted(key.verifying_key.key_id for key in approvers[:2]))


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_one_person_never_counts_twice(approvers: list[SigningKey], verify: Callable, copies: int) -> None:
    """However many files carry the same key."""
    with pytest.raises(ThresholdNotMet) as refusal:
        verify([sign_approval(TERMS, approvers[0])] * copies)
    assert (refusal.value.num_signers, refusal.value.threshold) == (1, 2)


def test_no_approval_is_no_approval(verify: Callable) -> None:
    """Absence is refused with the same figure."""
    with pytest.raises(ThresholdNotMet) as refusal:
        verify([])
    assert refusal.value.num_signers == 0


def test_strangers_count_nothing_and_harm_nothing(
    approvers: list[SigningKey], stranger: SigningKey, verify: Callable
) -> None:
    """A retired key's file may stay beside the others."""
    theirs = sign_approval(replace(TERMS, max_label=4), stranger)
    ours = [sign_approval(TERMS, key) for key in approvers[:2]]
    with pytest.raises(ThresholdNotMet):
        verify([ours[0], theirs])
    assert verify([theirs, *ours]).max_label == TERMS.max_label


def test_approvers_of_different_terms_approve_nothing_together(approvers: list[SigningKey], verify: Callable) -> None:
    """Two signatures over two texts are not two signatures over one."""
    wider = replace(TERMS, tenants=("plant", "strangers", "works"))
    with pytest.raises(DocumentRefused, match="different texts"):
        verify([sign_approval(TERMS, approvers[0]), sign_approval(wider, approvers[1])])


def test_forged_signature_in_an_approvers_name_is_refused(approvers: list[SigningKey], verify: Callable) -> None:
    """It is not merely left uncounted: somebody tried."""
    good = [sign_approval(TERMS, key) for key in approvers[:2]]
    forged = json.loads(sign_approval(TERMS, approvers[0]))
    forged["signatures"][0]["keyid"] = approvers[2].verifying_key.key_id
    with pytest.raises(SignatureRefused, match="does not verify"):
        verify([*good, json.dumps(forged).encode()])


def test_approval_of_another_model_is_refused(approvers: list[SigningKey], verify: Callable) -> None:
    """Same name, other bytes: approved is a root, never a name."""
    envelopes = [sign_approval(TERMS, key) for key in approvers]
    with pytest.raises(DocumentRefused, match="approves the root"):
        verify(envelopes, root="ef" * 32)


def test_approval_ends_at_its_very_second(approvers: list[SigningKey], verify: Callable) -> None:
    """Good one second before, refused at the moment and after."""
    envelopes = [sign_approval(TERMS, key) for key in approvers]
    end = datetime.fromisoformat(TERMS.expires_at)
    assert verify(envelopes, at=end - timedelta(seconds=1))
    for late in (end, end + timedelta(days=900)):
        with pytest.raises(Expired) as refusal:
            verify(envelopes, at=late)
        assert refusal.value.expires_at == TERMS.expires_at


def test_expired_approval_can_still_be_shown(approvers: list[SigningKey]) -> None:
    """Showing what was once allowed needs good signatures, not a good date."""
    trusted = [key.verifying_key for key in approvers]
    envelopes = [sign_approval(replace(TERMS, expires_at="2001-01-01T00:00:00Z"), key) for key in approvers]
    assert open_approvals(envelopes, trusted_keys=trusted, threshold=3).expires_at == "2001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "../x"),
        ("name", "a/b"),
        ("name", ".hidden"),
        ("name", "ä"),
        ("name", "x" * 129),
        ("root", "AB" * 32),
        ("root", ""),
        ("seq", 0),
        ("max_label", -1),
        ("max_label", 5),
        ("tenants", ("b", "a")),
        ("tenants", ("a", "a")),
        ("tenants", ("",)),
        ("version", ""),
        ("origin", " "),
        ("licence", ""),
        ("intended_use", ""),
        ("excluded_use", "x" * 4097),
        ("evaluation_sha256", "nothing"),
        ("expires_at", "2030-06-30"),
        ("expires_at", "2030-06-30T00:00:00+00:00"),
        ("expires_at", "2030-6-30T00:00:00Z"),
        ("expires_at", "2030-02-30T00:00:00Z"),
        ("expires_at", ""),
    ],
)
def test_terms_that_mean_nothing_cannot_be_made_or_signed(field: str, value: object) -> None:
    """Refused when the value is made, so neither signing nor verifying can meet them."""
    with pytest.raises(DocumentRefused):
        replace(TERMS, **{field: value})


def test_nobody_named_means_nobody_may() -> None:
    """An empty list of tenants and an absent evaluation are sayable, and say just that."""
    assert replace(TERMS, tenants=(), evaluation_sha256="").tenants == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.pop("max_label"),
        lambda p: p.update(max_label="2"),
        lambda p: p.update(max_label=True),
        lambda p: p.update(tenants="plant"),
        lambda p: p.update(extra="x"),
        lambda p: p.update(seq=0),
    ],
)
def test_malformed_statement_is_refused_though_well_signed(
    approvers: list[SigningKey], verify: Callable, spoil: Callable[[dict], object]
) -> None:
    """Nothing in it is guessed or defaulted."""
    statement = json.loads(parse_envelope(sign_approval(TERMS, approvers[0]), "approval").payload)
    spoil(statement["predicate"])
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DocumentRefused):
        verify([sign_envelope(IN_TOTO, payload, [key]) for key in approvers[:2]])


def test_statement_of_another_kind_is_refused(approvers: list[SigningKey], verify: Callable) -> None:
    """A trusted approver's signature under a policy or a model proves no approval."""
    payload = encode_statement({"granite-8b": ROOT}, "https://cloister/policy-bundle/v1", {})
    with pytest.raises(DocumentRefused, match="not a statement of type"):
        verify([sign_envelope(IN_TOTO, payload, [key]) for key in approvers[:2]])


def test_second_spelling_of_the_same_statement_is_refused(approvers: list[SigningKey], verify: Callable) -> None:
    """One text per value, so that approvers who agree sign the same bytes."""
    payload = json.dumps(json.loads(parse_envelope(sign_approval(TERMS, approvers[0]), "approval").payload)).encode()
    with pytest.raises(DocumentRefused, match="canonical"):
        verify([sign_envelope(IN_TOTO, payload, [key]) for key in approvers[:2]])


def test_threshold_of_zero_is_a_fault_of_the_caller(approvers: list[SigningKey], now: datetime) -> None:
    """It would accept anything, so it is no question that can be asked."""
    with pytest.raises(ValueError, match="unsigned"):
        verify_approvals([], trusted_keys=[approvers[0].verifying_key], threshold=0, root=ROOT, now=now)
