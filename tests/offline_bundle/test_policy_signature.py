"""Policy bundles: exactly these files, in this succession."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from offline_bundle.errors import DocumentRefused, SignatureRefused, ThresholdNotMet
from offline_bundle.keys import SigningKey
from offline_bundle.manifest import PolicyManifest
from offline_bundle.policy_signature import check_succession, sign_policy, verify_policy

FILES = {
    "base/10-roles.cedar": b"permit(principal, action, resource);",
    "schema/a.cedarschema": b"",
    "tests/x.json": b"{}",
}
ENGINE = "cedarpy 4.12.0"


@pytest.fixture
def policy_signer(make_key: Callable[[str], SigningKey]) -> SigningKey:
    """Who signs policy."""
    return make_key("policy-signer")


def verified(files: dict[str, bytes], signer: SigningKey, *, seq: int = 1, previous: str = "") -> PolicyManifest:
    """Sign and verify in one go."""
    envelope = sign_policy(files, seq=seq, previous=previous, engine=ENGINE, signer=signer)
    return verify_policy([envelope], files, trusted_keys=[signer.verifying_key], threshold=1)


def test_signed_bundle_verifies_with_its_digest(policy_signer: SigningKey) -> None:
    """All fields come out as signed."""
    manifest = verified(FILES, policy_signer)
    assert set(manifest.files) == set(FILES)
    assert (manifest.seq, manifest.previous, manifest.engine) == (1, "", ENGINE)
    assert manifest.signers == (policy_signer.verifying_key.key_id,)


def test_digest_is_what_sha256sum_gives(policy_signer: SigningKey, tmp_path: Path) -> None:
    """An auditor can recompute it with a shell."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pipeline = "LC_ALL=C sha256sum */* | LC_ALL=C sort -k 2 | sha256sum"
    printed = subprocess.run(["sh", "-c", pipeline], cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert printed.split()[0] == verified(FILES, policy_signer).digest


@pytest.mark.parametrize("name", sorted(FILES))
def test_changed_missing_or_extra_file_is_refused_by_name(policy_signer: SigningKey, name: str) -> None:
    """Each file in turn."""
    envelope = sign_policy(FILES, seq=1, previous="", engine=ENGINE, signer=policy_signer)

    def verify(files: dict[str, bytes]) -> PolicyManifest:
        return verify_policy([envelope], files, trusted_keys=[policy_signer.verifying_key], threshold=1)

    for files, what in (
        ({**FILES, name: FILES[name] + b" "}, "changed"),
        ({other: content for other, content in FILES.items() if other != name}, "missing"),
        ({**FILES, name + "x": b""}, "not signed"),
    ):
        with pytest.raises(DocumentRefused, match=what) as refusal:
            verify(files)
        assert name in str(refusal.value)


def test_bundle_without_a_trusted_signature_is_refused(
    policy_signer: SigningKey, stranger: SigningKey, make_key: Callable[[str], SigningKey]
) -> None:
    """Absent, foreign or too few."""
    trusted = [policy_signer.verifying_key, make_key("second").verifying_key]
    ours = sign_policy(FILES, seq=1, previous="", engine=ENGINE, signer=policy_signer)
    theirs = sign_policy(FILES, seq=1, previous="", engine=ENGINE, signer=stranger)
    for envelopes, threshold in (([], 1), ([theirs], 1), ([ours, theirs], 2), ([ours, ours], 2)):
        with pytest.raises(ThresholdNotMet):
            verify_policy(envelopes, FILES, trusted_keys=trusted, threshold=threshold)


def test_one_changed_byte_of_the_signed_text_is_refused(policy_signer: SigningKey) -> None:
    """Rewriting the statement breaks the signature."""
    envelope = json.loads(sign_policy(FILES, seq=1, previous="", engine=ENGINE, signer=policy_signer))
    payload = base64.b64decode(envelope["payload"]).replace(b'"seq":1', b'"seq":9')
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureRefused):
        verify_policy([json.dumps(envelope).encode()], FILES, trusted_keys=[policy_signer.verifying_key], threshold=1)


def test_succession_admits_the_next_bundle_only(policy_signer: SigningKey) -> None:
    """Left out, replaced, replayed or branched: refused."""
    first = verified(FILES, policy_signer)
    second = verified({**FILES, "site/1.cedar": b"x"}, policy_signer, seq=2, previous=first.digest)
    third = verified(FILES, policy_signer, seq=3, previous=second.digest)
    branch = verified({**FILES, "site/1.cedar": b"y"}, policy_signer, seq=2, previous="0" * 64)
    check_succession(None, first)
    check_succession(first, second)
    check_succession(second, third)
    for earlier, later in ((None, second), (first, third), (second, first), (first, first), (first, branch)):
        with pytest.raises(DocumentRefused, match="follows"):
            check_succession(earlier, later)


@pytest.mark.parametrize(
    ("seq", "previous", "engine"),
    [(0, "", ENGINE), (1, "0" * 64, ENGINE), (2, "", ENGINE), (2, "short", ENGINE), (1, "", "")],
)
def test_impossible_places_in_the_succession_are_never_signed(
    policy_signer: SigningKey, seq: int, previous: str, engine: str
) -> None:
    """The signer refuses what no verifier would accept."""
    with pytest.raises(DocumentRefused):
        sign_policy(FILES, seq=seq, previous=previous, engine=engine, signer=policy_signer)


@pytest.mark.parametrize("files", [{}, {"../x": b""}, {"/x": b""}])
def test_bundle_of_nothing_or_of_climbing_names_is_never_signed(
    policy_signer: SigningKey, files: dict[str, bytes]
) -> None:
    """Names become paths later."""
    with pytest.raises(DocumentRefused):
        sign_policy(files, seq=1, previous="", engine=ENGINE, signer=policy_signer)
