"""A new signing key for the log: who can verify what before, meanwhile and after, and what a crash leaves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from audit_log_builder import event_now
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from appliance.audit_trail import AuditTrail, Clock, Kind
from appliance.cli.audit import app
from appliance.key_rotation import record_rotation
from appliance.state.errors import StateCorrupt, StateError, StateUnusable
from appliance.state.files import make_folder, write_private
from appliance.state.layout import StateLayout
from appliance.state.log_keys import begin_rotation, end_rotation, open_log_keys, own_verifiers
from audit.checkpoint import LogSigner, open_checkpoint
from audit.errors import AuditCorrupt, ProofRefused
from audit.export import export_log
from audit.reader import AuditReader
from audit.store import create_log
from audit.subject_keys.keyring import SubjectKeyring
from audit.verify import verify_log
from audit.writer import AuditWriter, WriterConfig

NAME = "cloister.example/log"


def seeds() -> Callable[[int], bytes]:
    """Give a source of keys that can be told apart."""
    numbers = itertools.count(1)
    return lambda length: bytes([next(numbers)]) * length


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateLayout:
    """A log with one key."""
    made = StateLayout(tmp_path / "state")
    make_folder(made.log)
    key = Ed25519PrivateKey.from_private_bytes(b"\xaa" * 32)
    write_private(made.log_signing_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signer = LogSigner(NAME, key)
    write_private(made.log_vkey, f"{signer.verifier.vkey}\n".encode())
    create_log(made.audit_db, [signer])
    monkeypatch.setenv("CLOISTER_STATE_DIR", str(made.root))
    return made


async def run(layout: StateLayout) -> None:
    """Start, record what changed, append, stop: what an appliance does with its keys."""
    keys = open_log_keys(layout)
    config = WriterConfig(layout.audit_db, NAME, "boot", min_free_bytes=0)
    writer = AuditWriter.open(config, keys.signers, earlier_verifiers=keys.earlier)
    keyring = (
        SubjectKeyring(layout.subject_keys_db, bytes(32))
        if layout.subject_keys_db.exists()
        else SubjectKeyring.create(layout.subject_keys_db, bytes(32))
    )
    with AuditReader(layout.audit_db) as reader:
        await record_rotation(keys, AuditTrail(writer, keyring, Clock(), trust="production"), reader)
    await writer.append(event_now(1, "request:denied"))
    keyring.close()
    writer.close()


def rotations(layout: StateLayout) -> list[tuple[object, object, object]]:
    """What the log says of its keys."""
    with AuditReader(layout.audit_db) as reader:
        events = [entry.leaf.event for entry in reader.entries(limit=1000).entries]
    return [
        (event.facts["phase"], event.facts["new_vkey"], event.facts["old_vkey"])
        for event in events
        if event.kind == Kind.LOG_KEY_ROTATED
    ]


def head(layout: StateLayout) -> str:
    """The newest signed head."""
    with AuditReader(layout.audit_db) as reader:
        return reader.head().note


async def test_strangers_verify_with_the_old_key_meanwhile_and_with_the_new_one_after(
    layout: StateLayout, tmp_path: Path
) -> None:
    """Each with one public key and an export; the file's whole history with both."""
    old = open_log_keys(layout).signer.verifier
    await run(layout)
    new, retiring = begin_rotation(layout, seeds())
    assert (new.name, retiring) == (NAME, old)
    assert new.key_id != old.key_id
    for _ in range(2):
        await run(layout)
    for verifier in (old, new):
        assert open_checkpoint(head(layout), [verifier]).origin == NAME
    export_log(layout.audit_db, tmp_path / "meanwhile", new, earlier=[old])
    assert verify_log(tmp_path / "meanwhile", [old], None).ok
    assert verify_log(tmp_path / "meanwhile", [new], None).ok

    assert end_rotation(layout) == (new, old)
    for _ in range(2):
        await run(layout)
    assert open_checkpoint(head(layout), [new]).origin == NAME
    with pytest.raises(ProofRefused):
        open_checkpoint(head(layout), [old])
    export_log(layout.audit_db, tmp_path / "after", new, earlier=[old])
    assert verify_log(tmp_path / "after", [new], None).ok
    assert not verify_log(tmp_path / "after", [old], None).ok
    assert own_verifiers(layout) == [new, old]
    assert verify_log(layout.audit_db, own_verifiers(layout), None).ok
    assert not verify_log(layout.audit_db, [new], None).ok
    assert rotations(layout) == [("overlap", new.vkey, old.vkey), ("completed", new.vkey, old.vkey)]
    assert not layout.log_retiring_key.exists()
    assert {path.stat().st_mode & 0o777 for path in layout.log.iterdir()} == {0o600}


async def test_a_second_rotation_keeps_every_earlier_key(layout: StateLayout) -> None:
    """Oldest first on file, newest first for a reader."""
    random_bytes = seeds()
    first = open_log_keys(layout).signer.verifier
    known = [first]
    for _ in range(2):
        known.insert(0, begin_rotation(layout, random_bytes)[0])
        await run(layout)
        end_rotation(layout)
        await run(layout)
    assert own_verifiers(layout) == known
    assert verify_log(layout.audit_db, known, None).ok
    assert [phase for phase, _, _ in rotations(layout)] == ["overlap", "completed"] * 2


def test_the_commands_refuse_what_would_lose_a_key(layout: StateLayout) -> None:
    """A second beginning, an end before the new key has signed, an end of nothing."""
    runner = CliRunner()
    assert runner.invoke(app, ["rotate-key", "end"]).exit_code == 1
    assert runner.invoke(app, ["rotate-key", "begin"]).exit_code == 0
    said = runner.invoke(app, ["rotate-key", "begin"])
    assert (said.exit_code, "overlaps already" in said.stderr) == (1, True)
    said = runner.invoke(app, ["rotate-key", "end"])
    assert (said.exit_code, "not signed with the new key yet" in said.stderr) == (1, True)
    assert layout.log_retiring_key.exists()


async def test_the_commands_do_it_and_the_verdict_uses_every_key_of_the_folder(layout: StateLayout) -> None:
    """Typed by an operator; `verify` without a key, and with each of them by name."""
    runner = CliRunner()
    assert runner.invoke(app, ["rotate-key", "begin"]).exit_code == 0
    await run(layout)
    said = runner.invoke(app, ["rotate-key", "end"])
    assert said.exit_code == 0, said.stderr
    await run(layout)
    assert runner.invoke(app, ["verify"]).exit_code == 0
    earlier = layout.root / "earlier"
    earlier.write_text(layout.log_earlier_vkeys.read_text())
    both = ["verify", str(layout.audit_db), "--vkey", str(layout.log_vkey)]
    assert runner.invoke(app, both).exit_code == 4
    assert runner.invoke(app, [*both, "--vkey", str(earlier)]).exit_code == 0


@pytest.mark.parametrize("crash_at", range(1, 9))
async def test_a_rotation_that_was_cut_short_goes_on(
    layout: StateLayout, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """The machine dies at each change of a name: no key is lost, and the same command ends what it began."""
    old = open_log_keys(layout).signer.verifier
    calls = itertools.count(1)

    def dying(name: str) -> None:
        act = getattr(Path, name)

        def die(self: Path, *arguments: object, **named: object) -> object:
            if next(calls) == crash_at:
                raise OSError(5, "the power went")
            return act(self, *arguments, **named)

        monkeypatch.setattr(Path, name, die)

    with monkeypatch.context() as patched:
        monkeypatch = patched
        for name in ("replace", "rename", "rmdir", "mkdir"):
            dying(name)
        with suppress(OSError, StateError):
            begin_rotation(layout, seeds())
    if layout.log_rotation.exists():
        with pytest.raises(StateCorrupt, match="rotate-key begin"):
            open_log_keys(layout)
        begin_rotation(layout, seeds())
    elif open_log_keys(layout).retiring is None:
        assert open_log_keys(layout).signer.verifier == old
        begin_rotation(layout, seeds())
    keys = open_log_keys(layout)
    assert keys.retiring is not None
    assert keys.retiring.verifier == old
    assert keys.signer.verifier != old
    await run(layout)
    assert verify_log(layout.audit_db, [old], None).ok


def test_keys_that_do_not_belong_together_are_refused(layout: StateLayout) -> None:
    """A public key of another log among the earlier ones; a retiring pair that is none."""
    stranger = LogSigner.from_seed("stranger.example", bytes(32)).verifier
    write_private(layout.log_earlier_vkeys, f"{stranger.vkey}\n".encode())
    with pytest.raises(StateCorrupt, match="another log"):
        open_log_keys(layout)
    layout.log_earlier_vkeys.unlink()
    begin_rotation(layout, seeds())
    layout.log_retiring_vkey.unlink()
    write_private(layout.log_retiring_vkey, layout.log_vkey.read_bytes())
    with pytest.raises(StateCorrupt, match=r"not the key of retiring\.vkey"):
        open_log_keys(layout)
    with pytest.raises((StateUnusable, StateCorrupt, AuditCorrupt)):
        end_rotation(StateLayout(layout.root / "elsewhere"))
