"""Opening a state: every damaged, missing or exposed file is one error that names it and the remedy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.identity.errors import KeyStoreError
from appliance.state.errors import StateCorrupt, StateError, StateExposed, StateInUse, StateMissing
from appliance.state.files import read_private, write_private
from appliance.state.layout import StateLayout, parse_seq_name, seq_name
from appliance.state.opening import hold_state, newest_approval, open_state, read_approvals

VERIFIED_AT_OPENING = (
    "trust/root.1.json",
    "trust/root.fingerprint",
    "secrets/pepper",
    "secrets/kek",
    "secrets/ids.json",
    "log/signing.key",
    "log/verifier.vkey",
)


def blamed(refusal: StateError, path: Path) -> bool:
    """Whether the error names this path, or stands for the folder and says the file in words."""
    return refusal.path == path or path.name in str(refusal)


def test_whole_state_opens(state: StateLayout, now: datetime) -> None:
    """What comes out is what lies there, verified."""
    opened = open_state(state, now)
    assert opened.pepper == state.pepper.read_bytes()
    assert opened.kek == state.kek.read_bytes()
    assert opened.log_signer.verifier.vkey == state.log_vkey.read_text().strip()
    assert opened.trust_root.version == 1


@pytest.mark.parametrize("name", VERIFIED_AT_OPENING)
def test_damaged_file_is_refused_by_name_with_a_remedy(state: StateLayout, now: datetime, name: str) -> None:
    """Emptied, cut short, one bit flipped at several places: one clear error each."""
    path = state.root / name
    original = path.read_bytes()
    damages = [b"", original[: len(original) // 2], b"\xff" * len(original)]
    damages += [
        original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :]
        for position in (0, len(original) // 3, len(original) // 2, len(original) - 2)
    ]
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(StateError) as refusal:
            open_state(state, now)
        assert refusal.value.hint
        # Two files that contradict each other cannot both be blamed; the pair is.
        named = {state.root / other for other in VERIFIED_AT_OPENING if Path(other).parent == Path(name).parent}
        assert refusal.value.path in named, damage
    path.write_bytes(original)
    assert open_state(state, now)


@pytest.mark.parametrize("name", VERIFIED_AT_OPENING)
def test_missing_file_is_refused_by_name(state: StateLayout, now: datetime, name: str) -> None:
    """Never replaced by a default."""
    (state.root / name).unlink()
    with pytest.raises(StateError) as refusal:
        open_state(state, now)
    assert blamed(refusal.value, state.root / name)


def test_changed_missing_or_extra_policy_file_is_refused_by_name(state: StateLayout, now: datetime) -> None:
    """Each file of the bundle in force in turn."""
    files = state.policy_files(1)
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        name = path.relative_to(files).as_posix()
        original = path.read_bytes()
        path.write_bytes(original + b"\n")
        with pytest.raises(StateCorrupt, match=name):
            open_state(state, now)
        path.unlink()
        with pytest.raises(StateCorrupt, match=name):
            open_state(state, now)
        write_private(path, original)
        write_private(path.with_name("planted.cedar"), b"permit (principal, action, resource);")
        with pytest.raises(StateCorrupt, match=r"planted\.cedar"):
            open_state(state, now)
        path.with_name("planted.cedar").unlink()
    assert open_state(state, now)


def test_policy_without_signature_is_refused(state: StateLayout, now: datetime) -> None:
    """Absent is refused, never tolerated."""
    for path in state.policy_signatures(1).iterdir():
        path.unlink()
    with pytest.raises(StateCorrupt, match="1 are needed"):
        open_state(state, now)


def test_replayed_or_gapped_policy_bundle_is_refused(state: StateLayout, provision, now: datetime) -> None:
    """An older bundle copied to the top, or one cut out of the middle."""
    provision(policy_files={**_policy(state, now), "tests/more.json": _policy(state, now)["tests/limits.json"]})
    assert open_state(state, now).policy.seq == 2
    shutil.copytree(state.policy / seq_name(1), state.policy / seq_name(3))
    with pytest.raises(StateCorrupt, match="follows"):
        open_state(state, now)
    shutil.rmtree(state.policy / seq_name(3))
    shutil.rmtree(state.policy / seq_name(1))
    with pytest.raises(StateCorrupt, match="follows"):
        open_state(state, now)
    (state.policy / seq_name(2)).rename(state.policy / seq_name(1))
    with pytest.raises(StateCorrupt):
        open_state(state, now)


def test_state_without_any_policy_is_refused(state: StateLayout, now: datetime) -> None:
    """Nothing is decided by nothing."""
    shutil.rmtree(state.policy)
    with pytest.raises(StateMissing, match="no policy bundle"):
        open_state(state, now)


def test_expired_root_is_refused(state: StateLayout, now: datetime) -> None:
    """Development trust has an end too."""
    with pytest.raises(StateCorrupt, match="expired"):
        open_state(state, now + timedelta(days=4000))


def test_no_state_is_said_to_be_missing(tmp_path: Path, now: datetime) -> None:
    """Opening never creates."""
    with pytest.raises(StateMissing, match="no state here"):
        open_state(StateLayout(tmp_path / "nowhere"), now)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("name", "mode", "remedy"),
    [
        ("", 0o750, "chmod 700"),
        ("secrets", 0o711, "chmod 700"),
        ("secrets/pepper", 0o640, "chmod 600"),
        ("log/signing.key", 0o604, "chmod 600"),
        ("log/audit.db", 0o660, "chmod 600"),
        ("keys.db", 0o644, "chmod 600"),
        ("dev/keys.json", 0o620, "chmod 600"),
        ("models/starter/model.safetensors", 0o602, "chmod 600"),
        ("approvals", 0o777, "chmod 700"),
    ],
)
def test_path_open_to_others_is_refused_with_the_command_that_closes_it(
    state: StateLayout, now: datetime, name: str, mode: int, remedy: str
) -> None:
    """Whatever the path; after the remedy the state opens."""
    path = state.root / name if name else state.root
    closed = path.stat().st_mode & 0o777
    path.chmod(mode)
    with pytest.raises(StateExposed, match=remedy) as refusal:
        open_state(state, now)
    assert refusal.value.path == path
    path.chmod(closed)
    assert open_state(state, now)


@pytest.mark.parametrize("name", ["secrets/pepper", "models", "policy/000001/files/base", "log/verifier.vkey"])
def test_link_in_the_state_is_refused(state: StateLayout, tmp_path: Path, now: datetime, name: str) -> None:
    """Even to the very same content."""
    path = state.root / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateExposed, match="neither a file nor a folder") as refusal:
        open_state(state, now)
    assert refusal.value.path == path


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"developer": 1}', b"\xff", b'{"developer":"x","operator":"y","auditor":"z"}']
)
def test_damaged_key_file_is_refused_by_name(state: StateLayout, provision, content: bytes) -> None:
    """Before anyone is told that the state is ready."""
    state.dev_keys.write_bytes(content)
    with pytest.raises(StateCorrupt) as refusal:
        provision()
    assert refusal.value.path == state.dev_keys


def test_key_of_another_state_is_refused(state: StateLayout, provision) -> None:
    """Well-formed, but unknown to this database."""
    keys = json.loads(state.dev_keys.read_text())
    keys["operator"] = keys["developer"]
    state.dev_keys.write_text(json.dumps(keys))
    with pytest.raises(StateCorrupt, match="operator"):
        provision()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_damaged_key_database_is_refused_by_name(state: StateLayout, provision, content: bytes) -> None:
    """Nobody is let in on a guess."""
    state.keys_db.write_bytes(content)
    with pytest.raises((StateError, KeyStoreError)) as refusal:
        provision()
    assert refusal.value.path == state.keys_db


def test_damaged_approval_is_refused_by_name(state: StateLayout, provision) -> None:
    """With the remedy, which works."""
    (first, *_) = sorted(state.approval("starter", 1).iterdir())
    first.write_bytes(b"{}")
    with pytest.raises(StateCorrupt, match="remove") as refusal:
        provision()
    assert refusal.value.path == state.approval("starter", 1)
    shutil.rmtree(refusal.value.path)
    assert len(provision().changes) == 1


def test_damaged_model_signature_is_refused_by_name(state: StateLayout, provision) -> None:
    """With the remedy, which works."""
    path = state.model("starter") / "model.sig"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateCorrupt, match="remove") as refusal:
        provision()
    assert refusal.value.path == path
    shutil.rmtree(state.model("starter"))
    assert len(provision().changes) == 1


def test_approvals_of_an_unknown_model_are_none(state: StateLayout) -> None:
    """Absence is a value here; the model's own opening refuses it."""
    assert read_approvals(state, "unheard-of") == ()
    assert newest_approval(state, "unheard-of") == 0


def test_only_one_process_holds_a_state(state: StateLayout) -> None:
    """Also against a process of its own; the hold ends with its holder."""
    child = (
        "import sys; from pathlib import Path\n"
        "from appliance.state.layout import StateLayout\n"
        "from appliance.state.opening import hold_state\n"
        "with hold_state(StateLayout(Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", child, state.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StateInUse, match="CLOISTER_STATE_DIR"), hold_state(state):
        pass
    process.kill()
    process.communicate()
    with hold_state(state):
        pass


def test_sequence_names_have_one_spelling() -> None:
    """A second spelling of a number is not that number."""
    assert parse_seq_name(seq_name(7)) == 7
    assert parse_seq_name(seq_name(1_234_567)) == 1_234_567
    for name in ("7", "0000007", "000000", "00000a", ".staged", "", "-00001", "\N{ARABIC-INDIC DIGIT SEVEN}" * 6):
        assert parse_seq_name(name) is None


def test_file_is_created_once_and_privately(tmp_path: Path) -> None:
    """Nothing of ours is ever written over or through a link."""
    path = tmp_path / "secret"
    write_private(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private(path) == b"one"
    with pytest.raises(FileExistsError):
        write_private(path, b"two")
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "dangling", b"x")
    with pytest.raises(StateCorrupt, match="at most 2 bytes"):
        read_private(path, max_bytes=2)


def _policy(state: StateLayout, now: datetime) -> dict[str, bytes]:
    return dict(open_state(state, now).policy_files)
