"""Provisioning: whole or not at all, reused after that, signed again only where the source changed."""

from __future__ import annotations

import json
import random
import stat
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.identity.api_keys import ParsedKey, parse
from appliance.identity.errors import KeyStoreUnusable
from appliance.identity.key_store import KeyStore
from appliance.model_store import VerifiedModel, open_model
from appliance.state import development
from appliance.state.development import Provisioned, provision_development
from appliance.state.errors import StateCorrupt, StateInUse, StateUnusable
from appliance.state.layout import StateLayout
from appliance.state.opening import hold_state, open_state, read_approvals
from audit.reader import AuditReader
from audit.subject_keys.keyring import SubjectKeyring
from offline_bundle.errors import TrustError
from offline_bundle.trust_root import Role
from policies.bundle import policy_digest, read_source_bundle
from policies.errors import PolicyError


def open_starter(layout: StateLayout, now: datetime) -> VerifiedModel:
    """Open the installed model as the appliance does."""
    state = open_state(layout, now)
    return open_model(layout.model("starter"), state.trust_root, read_approvals(layout, "starter"), now)


def content_of(layout: StateLayout) -> dict[str, bytes]:
    """Every file of a state but the lock."""
    return {
        path.relative_to(layout.root).as_posix(): path.read_bytes()
        for path in layout.root.rglob("*")
        if path.is_file() and path != layout.lock
    }


def test_first_run_makes_a_state_that_opens(layout: StateLayout, provision, now: datetime) -> None:
    """Trust, secrets, log, policy, keys and model: each opened by the room that will use it."""
    made = provision()
    assert made.created
    assert made.changes == ()
    state = open_state(layout, now)
    assert state.trust_root.trust == "development"
    assert dict(state.policy_files) == dict(read_source_bundle())
    assert state.policy.digest == policy_digest(state.policy_files)
    assert open_starter(layout, now).approval.tenants == ("development",)
    SubjectKeyring(layout.subject_keys_db, state.kek).close()
    with AuditReader(layout.audit_db) as reader:
        assert reader is not None


def test_keys_are_shown_once_kept_on_file_and_known_to_the_database(layout: StateLayout, provision) -> None:
    """One for each duty, under development trust only."""
    keys = provision().new_keys
    assert set(keys) == {"developer", "operator", "auditor", "privacy", "peer"}
    assert json.loads(layout.dev_keys.read_text()) == dict(keys)
    assert provision().new_keys == {}
    store = KeyStore.open(layout.keys_db)
    for role, text in keys.items():
        parsed = parse(text.encode())
        assert isinstance(parsed, ParsedKey)
        record = store.find(parsed.key_id)
        assert record is not None
        assert record.roles == (role,)
    store.close()
    secrets = [text.encode().rpartition(b"_")[2] for text in keys.values()]
    for name, content in content_of(layout).items():
        if name != "dev/keys.json":
            assert not any(secret in content for secret in secrets), name


def test_every_folder_is_0700_and_every_file_0600(layout: StateLayout, provision) -> None:
    """Whatever the umask allows."""
    provision()
    for path in (layout.root, *layout.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_duties_are_held_by_distinct_keys(layout: StateLayout, provision, now: datetime) -> None:
    """The walk is the real one: signer, two approvers, policy and root; nobody may release."""
    provision()
    root = open_state(layout, now).trust_root
    assert root.threshold(Role.MODEL_APPROVER) == 2
    assert root.keys_for(Role.RELEASE) == ()
    held = [key.key_id for role in Role for key in root.keys_for(role)]
    assert len(set(held)) == len(held) == 5


def test_evaluation_and_licence_of_the_source_stand_in_the_approval(
    layout: StateLayout, provision, now: datetime
) -> None:
    """What is in the folder is named, and what is not is said to be absent."""
    provision()
    verified = open_starter(layout, now)
    assert verified.approval.evaluation_sha256 == verified.manifest.files["evaluation.json"]
    assert verified.approval.licence == "see LICENSE"


def test_second_run_changes_nothing(layout: StateLayout, provision) -> None:
    """Not a byte."""
    provision()
    before = content_of(layout)
    assert provision() == Provisioned(created=False, new_keys={}, changes=())
    assert content_of(layout) == before


def test_same_randomness_makes_the_same_trust(tmp_path: Path, starter: Path, now: datetime) -> None:
    """Nothing is drawn beside the argument; signatures are deterministic."""
    states = [StateLayout(tmp_path / name) for name in ("one", "two")]
    for layout in states:
        provision_development(layout, starter, now, random.Random(3).randbytes)
    one, two = map(content_of, states)
    databases = {"keys.db", "subject_keys.db", "log/audit.db"}
    assert {name: one[name] for name in one if name not in databases} == {
        name: two[name] for name in two if name not in databases
    }


def test_empty_folder_is_filled(layout: StateLayout, provision) -> None:
    """As an installer or an operator leaves it."""
    layout.root.mkdir(mode=0o700)
    assert provision().created


@pytest.mark.parametrize("suffix", ["", ".partial"])
def test_foreign_folder_is_never_touched(layout: StateLayout, provision, suffix: str) -> None:
    """Neither at the place of the state nor beside it, where it would be built."""
    foreign = layout.root.with_name(layout.root.name + suffix)
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(StateUnusable, match="neither empty nor a state"):
        provision()
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_changed_policy_source_is_signed_as_the_next_bundle(state: StateLayout, provision, now: datetime) -> None:
    """Developer edits a policy and starts again; the report names the file."""
    edited = dict(read_source_bundle())
    edited["site/local.cedar"] = (
        b'@id("site.never-at-night")\nforbid (principal, action == Action::"tokenize", resource)\n'
        b"when { context.minute_of_day > 1400 };\n"
    )
    report = provision(policy_files=edited)
    assert report.changes == ("policy bundle 2 signed, since site/local.cedar changed",)
    opened = open_state(state, now)
    assert (opened.policy.seq, dict(opened.policy_files)) == (2, edited)
    assert provision(policy_files=edited).changes == ()
    assert provision().changes == ("policy bundle 3 signed, since site/local.cedar changed",)
    assert open_state(state, now).policy.seq == 3


def test_policy_that_does_not_load_is_never_signed(state: StateLayout, provision, now: datetime) -> None:
    """The broken edit is refused with its file; the bundle in force stays in force."""
    before = content_of(state)
    with pytest.raises(PolicyError, match=r"base/10-roles\.cedar"):
        provision(policy_files={**read_source_bundle(), "base/10-roles.cedar": b"permit (principal"})
    assert content_of(state) == before
    assert open_state(state, now).policy.seq == 1


def test_changed_starter_is_signed_and_approved_as_the_next(
    state: StateLayout, provision, starter: Path, now: datetime
) -> None:
    """A changed, a new and a vanished file; the old approval stays on file."""
    before = open_starter(state, now).manifest
    (starter / "config.json").write_bytes(b'{"new": 1}')
    (starter / "chat_template.jinja").write_bytes(b"{{ x }}")
    (starter / "tokenizer.json").unlink()
    (change,) = provision().changes
    assert "approval 2" in change
    after = open_starter(state, now)
    assert after.manifest.root != before.root
    assert after.approval.seq == 2
    assert set(after.manifest.files) == {
        path.relative_to(starter).as_posix() for path in starter.rglob("*") if path.is_file()
    }
    assert (state.approval("starter", 1)).is_dir()
    assert provision().changes == ()


def test_approval_is_renewed_before_it_ends(state: StateLayout, provision, now: datetime) -> None:
    """A development state does not die of its own calendar."""
    later = now + timedelta(days=340)
    (change,) = provision(at=later).changes
    assert "approved anew (approval 2)" in change
    assert open_starter(state, later + timedelta(days=300)).approval.seq == 2


def test_signature_beside_the_source_is_not_taken_over(
    provision, starter: Path, layout: StateLayout, now: datetime
) -> None:
    """Only keys of this state sign for this state."""
    (starter / "model.sig").write_bytes(b"somebody else's")
    provision()
    assert open_starter(layout, now).manifest.signer in {
        key.key_id for key in open_state(layout, now).trust_root.keys_for(Role.MODEL_SIGNER)
    }
    assert provision().changes == ()


def test_damaged_installed_model_is_not_healed_in_silence(state: StateLayout, provision, now: datetime) -> None:
    """Source and signature agree, the installed byte does not: that is damage, and it is said."""
    (state.model("starter") / "tokenizer.json").write_bytes(b"[1]")
    assert provision().changes == ()
    with pytest.raises(Exception, match=r"tokenizer\.json"):
        open_starter(state, now)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x y"])
def test_model_name_that_is_no_folder_name_is_refused(layout: StateLayout, provision, name: str) -> None:
    """Before it becomes a path; and nothing half-made is left in place."""
    with pytest.raises(TrustError, match="no name for a model"):
        provision(model_name=name)
    assert not layout.root.exists()


def test_source_that_is_missing_or_holds_a_link_is_refused(layout: StateLayout, starter: Path, provision) -> None:
    """The next start, with the source mended, succeeds over the leftovers."""
    (starter / "link").symlink_to("config.json")
    with pytest.raises(TrustError, match="symbolic link"):
        provision()
    assert not layout.root.exists()
    (starter / "link").unlink()
    assert provision().created


def test_state_that_another_process_holds_is_left_alone(state: StateLayout, provision) -> None:
    """While one serves, a second start says so instead of working on the same files."""
    with hold_state(state), pytest.raises(StateInUse, match="another process"):
        provision()
    assert not provision().created


def test_two_first_runs_never_build_into_one_another(provision, monkeypatch) -> None:
    """The second is refused while the first builds."""
    refusals: list[StateInUse] = []
    real = development._make_log

    def second_run_in_between(draft: StateLayout, random_bytes) -> None:
        monkeypatch.setattr(development, "_make_log", real)
        with pytest.raises(StateInUse) as refusal:
            provision()
        refusals.append(refusal.value)
        real(draft, random_bytes)

    monkeypatch.setattr(development, "_make_log", second_run_in_between)
    assert provision().created
    assert len(refusals) == 1


def test_production_state_is_opened_and_left_exactly_as_it_is(
    state: StateLayout, provision, starter: Path, monkeypatch
) -> None:
    """Nothing is ever signed again there, whatever the sources say."""
    real = development.open_state

    def as_production(layout: StateLayout, at: datetime):
        opened = real(layout, at)
        return replace(opened, trust_root=replace(opened.trust_root, trust="production"))

    monkeypatch.setattr(development, "open_state", as_production)
    (starter / "config.json").write_bytes(b"changed")
    before = content_of(state)
    assert provision(policy_files={"base/x.cedar": b""}) == Provisioned(created=False, new_keys={}, changes=())
    assert content_of(state) == before


def test_revoked_development_key_stays_revoked(state: StateLayout, provision) -> None:
    """Trying out revocation must not make the next start fail or undo it."""
    parsed = parse(json.loads(state.dev_keys.read_text())["operator"].encode())
    assert isinstance(parsed, ParsedKey)
    store = KeyStore.open(state.keys_db)
    store.revoke(parsed.key_id, 1_900_000_000_000_000)
    store.close()
    assert provision().changes == ()
    store = KeyStore.open(state.keys_db)
    record = store.find(parsed.key_id)
    store.close()
    assert record is not None
    assert record.revoked_at_us == 1_900_000_000_000_000


@pytest.mark.usefixtures("state")
def test_a_key_database_that_the_machine_refuses_is_not_called_corrupt(provision, monkeypatch) -> None:
    """A full disk or a foreign lock at a start says nothing of the bytes: exit code 1, never 4."""

    def refused(path):
        raise KeyStoreUnusable("disk I/O error", path=path, hint="check disk space")

    monkeypatch.setattr(KeyStore, "open", refused)
    with pytest.raises(StateUnusable, match="disk I/O error"):
        provision()


def test_swapped_development_key_file_is_refused_by_name(state: StateLayout, provision) -> None:
    """A signer's key in an approver's place would merge two duties."""
    target = state.dev_signing_key("model-approver-1")
    target.write_bytes(state.dev_signing_key("model-signer").read_bytes())
    with pytest.raises(StateCorrupt) as refusal:
        provision()
    assert refusal.value.path == target


def test_a_state_of_an_earlier_release_gets_the_key_it_lacks(state: StateLayout, provision) -> None:
    """The role came later: its key is made, shown once and told; the other keys stay as they are."""
    keys = json.loads(state.dev_keys.read_text())
    state.dev_keys.write_text(json.dumps({role: text for role, text in keys.items() if role != "privacy"}))
    made = provision()
    assert set(made.new_keys) == {"privacy"}
    assert made.changes == ("development API key for privacy made, since this state had none",)
    assert json.loads(state.dev_keys.read_text()) == {**keys, **made.new_keys}
    assert provision() == Provisioned(created=False, new_keys={}, changes=())
    store = KeyStore.open(state.keys_db)
    parsed = parse(made.new_keys["privacy"].encode())
    assert isinstance(parsed, ParsedKey)
    assert store.find(parsed.key_id).roles == ("privacy",)
    store.close()


def test_a_making_of_the_lacking_key_that_was_cut_short_is_made_good(
    state: StateLayout, provision, monkeypatch
) -> None:
    """The database knows a key that no file has: the next start makes another, and no half file is read."""
    keys = json.loads(state.dev_keys.read_text())
    fewer = {role: text for role, text in keys.items() if role != "privacy"}
    state.dev_keys.write_text(json.dumps(fewer))

    def cut(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(StateUnusable):
            provision()
    assert json.loads(state.dev_keys.read_text()) == fewer
    assert set(provision().new_keys) == {"privacy"}
