"""`model.sig`: what may be signed, what is accepted, and the file that is to blame."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_folders import differing_files, sign_model

from offline_bundle.dsse import pae
from offline_bundle.errors import DocumentRefused, FolderRefused, SignatureRefused, TrustError
from offline_bundle.keys import SigningKey, VerifyingKey
from offline_bundle.model_signature import (
    GIT_NAMES,
    model_root,
    sign_digests,
    verify_signature,
)

IN_TOTO = "application/vnd.in-toto+json"
ZEROES, ONES = "0" * 64, "1" * 64


def sign_statement(statement: Mapping[str, object], key: SigningKey) -> bytes:
    """A bundle with a good signature over any statement: what a careless or hostile holder of a trusted key makes."""
    payload = json.dumps(statement).encode()
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": key.verifying_key.key_id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": IN_TOTO,
                "signatures": [{"sig": base64.b64encode(key.sign(pae(IN_TOTO, payload))).decode(), "keyid": ""}],
            },
        }
    ).encode()


def statement_over(resources: list[dict[str, object]]) -> dict:
    """A well-formed statement with a root that fits its resources."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": model_root(str(entry["digest"]) for entry in resources)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": resources,
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
        },
    }


def resource(name: str, digest: str = ZEROES) -> dict[str, object]:
    """One listed file."""
    return {"name": name, "digest": digest, "algorithm": "sha256"}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda curve: curve.name)
def test_signed_folder_verifies_and_compares_equal(folder: Path, curve: ec.EllipticCurve) -> None:
    """The manifest names every file, the folder and the signer."""
    key = SigningKey(ec.generate_private_key(curve))
    (folder / "model.sig").write_bytes(sign_model(folder, key))
    manifest = verify_signature((folder / "model.sig").read_bytes(), [key.verifying_key])
    assert manifest.name == "tiny"
    assert manifest.signer == key.verifying_key.key_id
    assert "model.sig" not in manifest.files
    assert manifest.root == model_root(manifest.files.values())
    assert differing_files(manifest, folder) == []


def test_files_stand_in_the_order_of_the_released_tool(folder: Path, signer: SigningKey) -> None:
    """By path component: `a/b.txt` before `a-b/c.txt` before `a.txt`, so that the roots of both tools agree."""
    names = list(verify_signature(sign_model(folder, signer), [signer.verifying_key]).files)
    assert names.index("a/b.txt") < names.index("a-b/c.txt") < names.index("a.txt")


def test_the_released_tools_signatures_verify(golden: Path) -> None:
    """Made by model_signing 1.1.1, with both curves and both ways of placing the file."""
    for signature, key in (
        ("tool-p256.sig", "p256"),
        ("tool-p384.sig", "p384"),
        ("tool-p256-outside.sig", "p256"),
    ):
        trusted = VerifyingKey.from_pem((golden / f"{key}.pub.pem").read_bytes())
        manifest = verify_signature((golden / signature).read_bytes(), [trusted])
        assert differing_files(manifest, golden / "model") == [], signature
        assert manifest.name == "model"


def test_both_tools_give_the_same_root(golden: Path, signer: SigningKey) -> None:
    """The model's identity does not depend on who signed."""
    trusted = VerifyingKey.from_pem((golden / "p256.pub.pem").read_bytes())
    theirs = verify_signature((golden / "tool-p256.sig").read_bytes(), [trusted])
    ours = verify_signature(sign_model(golden / "model", signer), [signer.verifying_key])
    assert (ours.root, dict(ours.files)) == (theirs.root, dict(theirs.files))


def test_our_signature_is_the_same_bytes_on_every_machine(golden: Path, signer: SigningKey) -> None:
    """A difference means that the format has changed."""
    assert sign_model(golden / "model", signer) == (golden / "ours.sig").read_bytes()


@pytest.mark.parametrize("name", [".git/hooks/pre-commit", ".gitattributes", ".github/x", ".gitignore"])
def test_file_dropped_where_the_released_tool_never_looks_is_found(golden: Path, tmp_path: Path, name: str) -> None:
    """The signature names Git's files as ignored; we accept the words and ignore nothing."""
    folder = tmp_path / "model"
    trusted = VerifyingKey.from_pem((golden / "p256.pub.pem").read_bytes())
    manifest = verify_signature((golden / "tool-p256.sig").read_bytes(), [trusted])
    for file in manifest.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes((golden / "model" / file).read_bytes())
    assert differing_files(manifest, folder) == []
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"payload")
    assert differing_files(manifest, folder) == [name]


@pytest.mark.parametrize("name", sorted(GIT_NAMES))
def test_signing_refuses_what_could_not_be_exchanged(folder: Path, signer: SigningKey, name: str) -> None:
    """The released tool skips Git's files at the root, so a signature that lists one fails there."""
    (folder / name).write_bytes(b"")
    with pytest.raises(FolderRefused) as refusal:
        sign_model(folder, signer)
    assert refusal.value.file == name


def test_an_empty_folder_is_never_signed(tmp_path: Path, signer: SigningKey) -> None:
    """A signature over nothing would bless anything."""
    (tmp_path / "model.sig").write_bytes(b"old")
    with pytest.raises(FolderRefused, match="holds no file"):
        sign_model(tmp_path, signer)


def test_signature_by_a_stranger_is_refused(folder: Path, signer: SigningKey, stranger: SigningKey) -> None:
    """Its own hint gives it away."""
    with pytest.raises(SignatureRefused, match=stranger.verifying_key.key_id[:16]):
        verify_signature(sign_model(folder, stranger), [signer.verifying_key])
    with pytest.raises(SignatureRefused):
        verify_signature(sign_model(folder, signer), [])


def test_stranger_with_a_borrowed_hint_is_refused(folder: Path, signer: SigningKey, stranger: SigningKey) -> None:
    """The hint only chooses the key that must verify."""
    bundle = json.loads(sign_model(folder, stranger))
    bundle["verificationMaterial"]["publicKey"]["hint"] = signer.verifying_key.key_id
    with pytest.raises(SignatureRefused, match="does not verify"):
        verify_signature(json.dumps(bundle).encode(), [signer.verifying_key])


def _without_hint(bundle: dict) -> None:
    bundle["verificationMaterial"]["publicKey"] = {}


def _certificate_chain(bundle: dict) -> None:
    bundle["verificationMaterial"] = {
        "x509CertificateChain": {"certificates": [{"rawBytes": "AA=="}]},
        "tlogEntries": [],
    }


def _second_signature(bundle: dict) -> None:
    bundle["dsseEnvelope"]["signatures"] *= 2


def _signed_by_another_name(bundle: dict) -> None:
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = ONES


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"),
        lambda b: b.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"),
        lambda b: b.update(extra=1),
        lambda b: b["verificationMaterial"].update(tlogEntries=[{}]),
        lambda b: b["verificationMaterial"].update(timestampVerificationData={}),
        lambda b: b["verificationMaterial"]["publicKey"].update(rawBytes="AA=="),
        lambda b: b["verificationMaterial"]["publicKey"].update(hint=ZEROES.upper() + "A"),
        lambda b: b["dsseEnvelope"].update(signatures=[]),
        lambda b: b["dsseEnvelope"].update(payloadType="application/json"),
        lambda b: b.pop("dsseEnvelope"),
        _without_hint,
        _certificate_chain,
        _second_signature,
        _signed_by_another_name,
    ],
)
def test_bundle_of_any_other_form_is_refused(folder: Path, signer: SigningKey, spoil: Callable[[dict], object]) -> None:
    """One format, one path: no certificate, no log entry, no second signature, no unknown field."""
    bundle = json.loads(sign_model(folder, signer))
    spoil(bundle)
    with pytest.raises(DocumentRefused):
        verify_signature(json.dumps(bundle).encode(), [signer.verifying_key])


def test_bundle_without_the_optional_parts_is_accepted(folder: Path, signer: SigningKey) -> None:
    """The released tool reads it so too."""
    bundle = json.loads(sign_model(folder, signer))
    del bundle["verificationMaterial"]["tlogEntries"]
    del bundle["dsseEnvelope"]["signatures"][0]["keyid"]
    assert verify_signature(json.dumps(bundle, indent=2).encode(), [signer.verifying_key]).files


def test_annotations_of_a_file_are_accepted(signer: SigningKey) -> None:
    """The published schema allows them; nothing is drawn from them."""
    entry = {**resource("a"), "annotations": {"size": 3}}
    assert verify_signature(sign_statement(statement_over([entry]), signer), [signer.verifying_key]).files == {
        "a": ZEROES
    }


@pytest.mark.parametrize(
    "resources",
    [
        [],
        [resource("a"), resource("a")],
        [resource("a"), resource("a", ONES)],
        [resource("b"), resource("a")],
        [resource("../a")],
        [resource("a/../b")],
        [resource("/etc/passwd")],
        [resource("a\\b")],
        [resource("a\0b")],
        [resource("a//b")],
        [resource("")],
        [resource("model.sig")],
        [{**resource("a"), "algorithm": "blake3"}],
        [{**resource("a"), "algorithm": "sha256-sharded-1000"}],
        [{**resource("a"), "extra": 1}],
    ],
    ids=lambda resources: ascii([entry["name"] for entry in resources]),
)
def test_statement_with_an_unsafe_list_of_files_is_refused_though_well_signed(
    signer: SigningKey, resources: list[dict[str, object]]
) -> None:
    """Empty, duplicate, unordered, climbing or foreign entries: a trusted signature does not make them safe."""
    with pytest.raises(DocumentRefused):
        verify_signature(sign_statement(statement_over(resources), signer), [signer.verifying_key])


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, ("0" * 63) + "A", ("0" * 63) + "g", "../" + "0" * 61])
def test_digest_that_is_no_sha256_is_refused(signer: SigningKey, digest: str) -> None:
    """Before it is used for anything."""
    statement = statement_over([resource("a")])
    statement["predicate"]["resources"][0]["digest"] = digest
    with pytest.raises(DocumentRefused, match="not a SHA-256"):
        verify_signature(sign_statement(statement, signer), [signer.verifying_key])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"),
        lambda s: s.update(predicateType="https://cloister/approval/v1"),
        lambda s: s.update(subject=[]),
        lambda s: s.update(subject=s["subject"] * 2),
        lambda s: s["subject"][0]["digest"].update(sha256=ONES),
        lambda s: s["subject"][0]["digest"].update(sha512="0" * 128),
        lambda s: s["predicate"].update(policy={}),
        lambda s: s["predicate"]["serialization"].update(method="shards"),
        lambda s: s["predicate"]["serialization"].update(hash_type="blake3"),
        lambda s: s["predicate"]["serialization"].update(allow_symlinks=True),
        lambda s: s["predicate"]["serialization"].update(ignore_paths=["."]),
        lambda s: s["predicate"]["serialization"].update(ignore_paths=["tokenizer.json"]),
        lambda s: s["predicate"]["serialization"].update(ignore_paths=["../model.sig"]),
        lambda s: s["predicate"]["serialization"].update(ignore_paths=[".git/"]),
        lambda s: s["predicate"]["serialization"].update(shard_size=8),
        lambda s: s["predicate"].pop("serialization"),
    ],
)
def test_statement_that_says_anything_else_is_refused_though_well_signed(
    signer: SigningKey, spoil: Callable[[dict], object]
) -> None:
    """Older predicates, other hashes, ignored paths, links, a root that does not fit: refused."""
    statement = statement_over([resource("a")])
    spoil(statement)
    with pytest.raises(DocumentRefused):
        verify_signature(sign_statement(statement, signer), [signer.verifying_key])


names = st.lists(
    st.text(st.sampled_from("ab.-/é"), min_size=1, max_size=6).filter(
        lambda name: not any(part in ("", ".", "..") for part in name.split("/"))
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


@settings(deadline=None, max_examples=60)
@given(
    files=names.flatmap(lambda names: st.fixed_dictionaries({name: st.sampled_from([ZEROES, ONES]) for name in names}))
)
def test_what_was_signed_is_what_is_verified(files: dict[str, str]) -> None:
    """Whatever the names: the manifest holds exactly them, and the root is that of the listed order."""
    key = SigningKey.generate(lambda count: b"\x05" * count)
    manifest = verify_signature(sign_digests("m", files, key), [key.verifying_key])
    assert dict(manifest.files) == files
    assert manifest.root == model_root(manifest.files.values())


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_flipped_bit_of_a_signature_file_changes_what_is_accepted(data: st.DataObject) -> None:
    """The same manifest comes out, or a typed refusal."""
    key = SigningKey.generate(lambda count: b"\x05" * count)
    raw = bytearray(sign_digests("m", {"a": ZEROES, "b": ONES}, key))
    expected = verify_signature(bytes(raw), [key.verifying_key])
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    try:
        manifest = verify_signature(bytes(raw), [key.verifying_key])
    except TrustError:
        return
    assert manifest == expected
