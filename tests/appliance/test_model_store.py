"""The load of a model: signed, approved, whole, or refused with the name of the file."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from trusted_models import NOW, TrustedModel, key_of, sign_and_approve, trust_root

from appliance import model_store
from appliance.model_store import ModelRefused, VerifiedModel, open_model
from engine.config import FileDigest
from engine.weights.errors import DigestMismatch
from engine.weights.verified_folder import VerifiedFolder
from offline_bundle.model_signature import sign_digests, verify_signature

FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "generation_config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"[]",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"a card",
    "sub/notes.txt": b"",
}
SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
    "consolidated.safetensors": b"nobody reads this",
    "tokenizer.json": b"[]",
}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """A model folder named `tiny`."""
    folder = root / "tiny"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def load(model: TrustedModel, *, approvals: tuple[bytes, ...] | None = None, now: datetime = NOW) -> VerifiedModel:
    """What the whole load does: open here, then let the engine's reader verify what it would use."""
    verified = open_model(model.folder, trust_root(), model.approvals if approvals is None else approvals, now)
    folder = VerifiedFolder(str(verified.folder), verified.engine_digests)
    folder.read_all([file.name for file in verified.engine_digests])
    return verified


@pytest.fixture(params=[FILES, SHARDED], ids=["one file", "shards"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> TrustedModel:
    """A signed and approved model in both forms of weights."""
    return sign_and_approve(write_folder(tmp_path, request.param))


@pytest.fixture
def whole(tmp_path: Path) -> TrustedModel:
    """A signed and approved model with one weight file."""
    return sign_and_approve(write_folder(tmp_path, FILES))


def test_verified_model_carries_the_verified_bytes(whole: TrustedModel) -> None:
    """Everything but the weights is in memory; the engine gets the digests of what it reads, and no other."""
    verified = load(whole)
    assert verified.name == "tiny"
    assert dict(verified.files) == {name: content for name, content in FILES.items() if name != "model.safetensors"}
    assert {file.name for file in verified.engine_digests} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert all(isinstance(file, FileDigest) for file in verified.engine_digests)
    assert verified.approval.tenants == ("plant",)
    assert len(verified.approval.approvers) == 2


def test_shards_that_the_index_names_go_to_the_engine(tmp_path: Path) -> None:
    """And a weight file that it does not name is hashed here, so that no file escapes both sides."""
    verified = load(sign_and_approve(write_folder(tmp_path, SHARDED)))
    assert {file.name for file in verified.engine_digests} == {
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    assert "consolidated.safetensors" not in verified.files


def test_changed_byte_in_any_file_stops_the_load_and_names_it(model: TrustedModel) -> None:
    """Every file in turn, by whichever side reads it."""
    for path in sorted(path for path in model.folder.rglob("*") if path.is_file()):
        name = path.relative_to(model.folder).as_posix()
        original = path.read_bytes()
        path.write_bytes(bytes([*original[:-1], original[-1] ^ 1]) if original else b"x")
        with pytest.raises((ModelRefused, DigestMismatch)) as refusal:
            load(model)
        assert refusal.value.file == name, str(refusal.value)
        assert refusal.value.hint
        path.write_bytes(original)
    assert load(model)


def test_missing_file_stops_the_load_and_is_named(model: TrustedModel) -> None:
    """Every file in turn, the signature too; the weights are missed before the engine starts."""
    for path in sorted(path for path in model.folder.rglob("*") if path.is_file()):
        original = path.read_bytes()
        path.unlink()
        with pytest.raises(ModelRefused, match="missing") as refusal:
            load(model)
        assert refusal.value.file == path.relative_to(model.folder).as_posix()
        path.write_bytes(original)
    assert load(model)


@pytest.mark.parametrize(
    "name", ["extra.txt", "sub/modeling_llama.py", ".git/hooks/x", ".hidden", "model-2.safetensors", "a/model.sig"]
)
def test_extra_file_stops_the_load_and_is_named(whole: TrustedModel, name: str) -> None:
    """Wherever it hides, also where the released signing tool never looks."""
    (whole.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (whole.folder / name).write_bytes(b"")
    with pytest.raises(ModelRefused, match="not in the signed manifest") as refusal:
        load(whole)
    assert refusal.value.file == name


def test_link_in_place_of_a_file_stops_the_load(whole: TrustedModel, tmp_path: Path) -> None:
    """Even one that leads to the very same bytes."""
    path = whole.folder / "tokenizer.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelRefused, match="symbolic link") as refusal:
        load(whole)
    assert refusal.value.file == "tokenizer.json"


def test_file_swapped_for_a_link_after_listing_stops_the_load(
    whole: TrustedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between list and read nobody can lead the reader outside."""
    real = model_store.list_folder

    def list_then_swap(folder: Path) -> tuple[str, ...]:
        names = real(folder)
        (folder / "README.md").unlink()
        (folder / "README.md").symlink_to(tmp_path / "secret")
        return names

    (tmp_path / "secret").write_bytes(FILES["README.md"])
    monkeypatch.setattr(model_store, "list_folder", list_then_swap)
    with pytest.raises(ModelRefused) as refusal:
        load(whole)
    assert refusal.value.file == "README.md"


def test_model_signed_by_a_stranger_is_refused(tmp_path: Path) -> None:
    """A whole folder with a perfect signature by nobody we know."""
    model = sign_and_approve(write_folder(tmp_path, FILES), signer="mallory")
    with pytest.raises(ModelRefused, match="trust root does not list") as refusal:
        load(model)
    assert refusal.value.file == "model.sig"


def test_approver_cannot_stand_in_for_the_signer(tmp_path: Path) -> None:
    """Trust is given per duty."""
    model = sign_and_approve(write_folder(tmp_path, FILES), signer="alice")
    with pytest.raises(ModelRefused, match="trust root does not list"):
        load(model)


def test_signer_cannot_stand_in_for_an_approver(whole: TrustedModel) -> None:
    """Neither the maker nor one person twice make four eyes."""
    for approvals in ((), whole.approvals[:1], whole.approvals[:1] * 2, whole.approved_by("alice", "maker")):
        with pytest.raises(ModelRefused, match="2 are needed"):
            load(whole, approvals=approvals)


def test_approval_of_other_bytes_is_refused(whole: TrustedModel) -> None:
    """After a new signature the old approval says nothing any more."""
    (whole.folder / "config.json").write_bytes(b'{"architectures": ["Other"]}')
    resigned = sign_and_approve(whole.folder)
    with pytest.raises(ModelRefused, match="approves the root"):
        load(whole)
    assert load(resigned)


def test_expired_approval_is_refused_at_its_second(whole: TrustedModel) -> None:
    """The clock is an argument, the boundary exact."""
    end = datetime.fromisoformat("2031-01-01T00:00:00Z")
    assert load(whole, now=end - timedelta(seconds=1))
    with pytest.raises(ModelRefused, match="expired"):
        load(whole, now=end)


def test_model_approved_under_another_name_is_refused(whole: TrustedModel) -> None:
    """Moving an approved folder does not give its bytes a new name."""
    with pytest.raises(ModelRefused, match="approved as 'other'"):
        load(whole, approvals=whole.approved_by("alice", "bob", name="other"))


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"[]", b'{"mediaType": 1}'])
def test_damaged_signature_file_is_a_refusal_that_names_it(whole: TrustedModel, content: bytes) -> None:
    """Never a stack trace."""
    (whole.folder / "model.sig").write_bytes(content)
    with pytest.raises(ModelRefused) as refusal:
        load(whole)
    assert refusal.value.file == "model.sig"


def test_folder_that_is_not_there_is_a_refusal(whole: TrustedModel) -> None:
    """The path stands in the message."""
    with pytest.raises(ModelRefused, match="no folder"):
        open_model(whole.folder / "nowhere", trust_root(), whole.approvals, NOW)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": []}}',
        b'{"weight_map": {"a": "absent.safetensors"}}',
    ],
)
def test_signed_but_senseless_index_is_refused_by_name(tmp_path: Path, index: bytes) -> None:
    """It decides what is hashed where, so it is never guessed at."""
    model = sign_and_approve(write_folder(tmp_path, {**SHARDED, "model.safetensors.index.json": index}))
    with pytest.raises(ModelRefused) as refusal:
        load(model)
    assert refusal.value.file == "model.safetensors.index.json"


def test_manifest_that_lists_more_than_the_folder_holds_is_refused(whole: TrustedModel) -> None:
    """Signed over a file that never arrived."""
    digests = {**verify_signature((whole.folder / "model.sig").read_bytes(), [key_of("maker").verifying_key]).files}
    raw = sign_digests("tiny", {**digests, "vocab.txt": "0" * 64}, key_of("maker"))
    (whole.folder / "model.sig").write_bytes(raw)
    root = verify_signature(raw, [key_of("maker").verifying_key]).root
    with pytest.raises(ModelRefused, match="missing") as refusal:
        load(whole, approvals=whole.approved_by("alice", "bob", root=root))
    assert refusal.value.file == "vocab.txt"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_a_refusal_that_names_it(whole: TrustedModel) -> None:
    """The operator learns which file and what to check."""
    (whole.folder / "tokenizer.json").chmod(0)
    with pytest.raises(ModelRefused) as refusal:
        load(whole)
    assert refusal.value.file == "tokenizer.json"


def test_later_changes_on_disk_do_not_reach_the_kept_bytes(whole: TrustedModel) -> None:
    """What was verified is what is used; the weights are caught by the engine's own reading."""
    verified = load(whole)
    for name in FILES:
        (verified.folder / name).write_bytes(b"changed later")
    assert verified.files["tokenizer.json"] == FILES["tokenizer.json"]
    with pytest.raises(DigestMismatch):
        VerifiedFolder(str(verified.folder), verified.engine_digests).read("model.safetensors")
