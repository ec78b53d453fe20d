"""What `make serve` starts from: a whole state under development trust, made once and reused after that.

Laws: a state appears whole or not at all (built beside its place, flushed, renamed); what exists is verified before
it is used and never repaired in silence; what the developer edits (policy files, starter model) is signed again with
the next sequence number, and the report says so; a state under production trust is left exactly as it is.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy.exc import DBAPIError

from appliance.state.development_access import add_missing_keys, check_api_keys, make_api_keys
from appliance.state.development_keys import DevelopmentKeys, make_keys, make_trust_root, read_keys
from appliance.state.development_model import install_model
from appliance.state.errors import StateInUse, StateUnusable
from appliance.state.files import FILE_MODE, flush_folder, flush_tree, make_folder, refusing, write_private
from appliance.state.layout import StateLayout
from appliance.state.opening import SECRET_BYTES, OpenState, hold_state, lock_descriptor, open_state, secret_id
from audit.checkpoint import LogSigner
from audit.store import create_log
from audit.subject_keys.keyring import SubjectKeyring
from offline_bundle.manifest import PolicyManifest
from offline_bundle.policy_signature import sign_policy
from offline_bundle.strict_json import canonical
from offline_bundle.trust_root import TrustRoot, open_root_chain
from policies.bundle import load_bundle, read_source_bundle

MODEL_NAME = "starter"
_LOG_NAME_BYTES = 8


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a call did."""

    created: bool
    """Whether the state was made by this call."""
    new_keys: Mapping[str, str] = field(repr=False)
    """Role -> API key in the clear, of keys made by this call."""
    changes: tuple[str, ...]
    """One sentence per thing that was signed or made anew; empty on the first run and when nothing had changed."""


def provision_development(
    layout: StateLayout,
    starter_folder: Path,
    now: datetime,
    random_bytes: Callable[[int], bytes],
    *,
    policy_files: Mapping[str, bytes] | None = None,
    model_name: str = MODEL_NAME,
) -> Provisioned:
    """Make the state if there is none, else verify it and bring policy and model to their sources.

    Args:
        layout: where.
        starter_folder: unsigned model; copied, signed and approved.
        now: the appliance's clock, with a time zone.
        random_bytes: `secrets.token_bytes`, or a seeded source in a test.
        policy_files: the policy bundle to sign; the one of this release when left out.
        model_name: under which name the model is approved.

    Raises:
        StateError: names the file at fault and the remedy.
        TrustError, PolicyError: the source model or policy cannot be signed.
    """
    sources = _Sources(starter_folder, read_source_bundle() if policy_files is None else policy_files, model_name)
    if _is_there(layout):
        with hold_state(layout):
            return _reuse(layout, sources, now, random_bytes)
    return Provisioned(True, _create(layout, sources, now, random_bytes), ())


@dataclass(frozen=True, slots=True)
class _Sources:
    starter: Path
    policy_files: Mapping[str, bytes]
    model_name: str


def _reuse(layout: StateLayout, sources: _Sources, now: datetime, random_bytes: Callable[[int], bytes]) -> Provisioned:
    state = open_state(layout, now)
    if state.trust_root.trust != "development":
        return Provisioned(created=False, new_keys=MappingProxyType({}), changes=())
    keys = read_keys(layout, state.trust_root)
    check_api_keys(layout, state.pepper)
    new_keys = add_missing_keys(layout, state.pepper, now, random_bytes)
    with refusing(layout.root):
        changes = (
            *(f"development API key for {role} made, since this state had none" for role in new_keys),
            *_renew_policy(state, sources.policy_files, keys),
            *install_model(layout, sources.model_name, sources.starter, keys, state.trust_root, now),
        )
    return Provisioned(created=False, new_keys=MappingProxyType(dict(new_keys)), changes=changes)


def _create(
    layout: StateLayout, sources: _Sources, now: datetime, random_bytes: Callable[[int], bytes]
) -> Mapping[str, str]:
    draft = StateLayout(layout.root.with_name(layout.root.name + ".partial"))
    _is_there(draft)
    with refusing(draft.root):
        make_folder(draft.root)
        lock = os.open(draft.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            lock_descriptor(lock, draft.lock)
            _check_still_there(draft, lock)
            _clear(draft)
            new_keys = _build(draft, sources, now, random_bytes)
            flush_tree(draft.root)
            _put_in_place(draft, layout)
        finally:
            os.close(lock)
    return new_keys


def _build(
    layout: StateLayout, sources: _Sources, now: datetime, random_bytes: Callable[[int], bytes]
) -> Mapping[str, str]:
    for folder in (layout.trust, layout.secrets, layout.log, layout.policy, layout.models, layout.dev):
        make_folder(folder)
    keys = make_keys(layout, random_bytes)
    trust_root = _make_trust(layout, keys, now)
    pepper, kek = _make_secrets(layout, random_bytes)
    _make_log(layout, random_bytes)
    with _refusing_database(layout.subject_keys_db):
        SubjectKeyring.create(layout.subject_keys_db, kek).close()
    _sign_policy(layout, sources.policy_files, keys, earlier=None)
    install_model(layout, sources.model_name, sources.starter, keys, trust_root, now)
    return make_api_keys(layout, pepper, now, random_bytes)


def _make_trust(layout: StateLayout, keys: DevelopmentKeys, now: datetime) -> TrustRoot:
    raw, fingerprint = make_trust_root(keys, now)
    write_private(layout.trust_root(1), raw)
    write_private(layout.trust_pin, f"{fingerprint}\n".encode())
    return open_root_chain([raw], fingerprint, now)


def _make_secrets(layout: StateLayout, random_bytes: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    pepper, kek = random_bytes(SECRET_BYTES), random_bytes(SECRET_BYTES)
    write_private(layout.pepper, pepper)
    write_private(layout.kek, kek)
    ids = {"pepper": secret_id(pepper, "pepper"), "kek": secret_id(kek, "kek")}
    write_private(layout.secret_ids, canonical({**ids}) + b"\n")
    return pepper, kek


def _make_log(layout: StateLayout, random_bytes: Callable[[int], bytes]) -> None:
    private_key = Ed25519PrivateKey.from_private_bytes(random_bytes(SECRET_BYTES))
    signer = LogSigner(f"cloister.development/{random_bytes(_LOG_NAME_BYTES).hex()}", private_key)
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(layout.log_signing_key, pem)
    write_private(layout.log_vkey, f"{signer.verifier.vkey}\n".encode())
    with _refusing_database(layout.audit_db):
        create_log(layout.audit_db, [signer])


def _renew_policy(state: OpenState, wanted: Mapping[str, bytes], keys: DevelopmentKeys) -> tuple[str, ...]:
    if dict(wanted) == dict(state.policy_files):
        return ()
    changed = sorted(
        name for name in {*wanted, *state.policy_files} if wanted.get(name) != state.policy_files.get(name)
    )
    seq = _sign_policy(state.layout, wanted, keys, earlier=state.policy)
    return (f"policy bundle {seq} signed, since {', '.join(changed)} changed",)


def _sign_policy(
    layout: StateLayout, files: Mapping[str, bytes], keys: DevelopmentKeys, *, earlier: PolicyManifest | None
) -> int:
    """Sign a bundle that loads; one that does not is refused before anything is written."""
    load_bundle(files)
    seq, previous = (earlier.seq + 1, earlier.digest) if earlier else (1, "")
    engine = f"cedarpy {version('cedarpy')}"
    signer = keys.policy_signer
    signature = sign_policy(files, seq=seq, previous=previous, engine=engine, signer=signer)
    staged = layout.policy / ".staged"
    if staged.exists():
        shutil.rmtree(staged)  # a signing that was cut short
    for name, content in files.items():
        make_folder((staged / "files" / name).parent)
        write_private(staged / "files" / name, content)
    make_folder(staged / "signatures")
    write_private(staged / "signatures" / f"{signer.verifying_key.key_id}.json", signature)
    flush_tree(staged)
    staged.rename(layout.policy_files(seq).parent)
    flush_folder(layout.policy)
    return seq


def _is_there(layout: StateLayout) -> bool:
    """Whether there is a state; an empty folder, as an installer leaves it, is none.

    Raises:
        StateUnusable: there is something else, which is never touched.
    """
    with refusing(layout.root):
        if not layout.root.exists() or not any(layout.root.iterdir()):
            return False
    if not layout.lock.exists():
        raise StateUnusable(
            layout.root,
            "it is neither empty nor a state folder",
            hint="set CLOISTER_STATE_DIR to another folder, or remove this one",
        )
    return True


def _check_still_there(draft: StateLayout, lock: int) -> None:
    """The lock that was taken must be that of the folder that is there now, not of one just put in place."""
    try:
        same = os.path.samestat(draft.lock.stat(), os.fstat(lock))
    except FileNotFoundError:
        same = False
    if not same:
        raise StateInUse(draft.root, "another process has just made this state", hint="start again")


def _clear(draft: StateLayout) -> None:
    """Remove what a making that was cut short left behind, under its lock."""
    for path in draft.root.iterdir():
        if path == draft.lock:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _refusing_database(path: Path) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        raise StateUnusable(path, f"it cannot be made: {error}", hint="check disk space and permissions") from error


def _put_in_place(draft: StateLayout, layout: StateLayout) -> None:
    try:
        draft.root.rename(layout.root)
    except OSError as error:
        raise StateUnusable(
            layout.root, f"the new state cannot be put here: {error.strerror}", hint="free the path and start again"
        ) from error
    flush_folder(layout.root.parent)
