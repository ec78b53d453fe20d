"""The model of a development state: copied, signed over the copied bytes, approved by both approvers.

Laws: a model is replaced only when the source it came from has changed, never because the installed copy has: that
one is damaged, and says so.  Approvals and swaps are ordered so that a crash leaves a state that the next start
completes:

    staged -> approval of the new root -> old folder aside -> new folder in place -> old folder removed
                a crash up to here: source and installed model differ, all of it is done again
                                      here: no folder of that name, it is installed again
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from appliance.state.development_access import MAX_LABEL, TENANT
from appliance.state.development_keys import DevelopmentKeys
from appliance.state.errors import StateCorrupt, StateMissing
from appliance.state.files import flush_folder, flush_tree, make_folder, read_private, write_private
from appliance.state.layout import StateLayout
from appliance.state.opening import newest_approval, read_approvals
from offline_bundle.approval import MODEL_NAME, ApprovalTerms, open_approvals, sign_approval
from offline_bundle.errors import DocumentRefused, TrustError
from offline_bundle.folder import copy_file, hash_folder
from offline_bundle.manifest import ModelManifest
from offline_bundle.model_signature import SIGNATURE_NAME, sign_digests, verify_signature
from offline_bundle.statement import format_time, parse_time
from offline_bundle.trust_root import Role, TrustRoot

APPROVED_FOR = timedelta(days=365)
RENEWED_BEFORE_END = timedelta(days=30)
EVALUATION = "evaluation.json"
LICENCE = "LICENSE"
_SKIP = frozenset({SIGNATURE_NAME})


def install_model(
    layout: StateLayout, name: str, source: Path, keys: DevelopmentKeys, trust_root: TrustRoot, now: datetime
) -> tuple[str, ...]:
    """Bring the installed model to its source; return one sentence per change, none when nothing was to be done.

    Raises:
        StateError: the installed model or its approval is damaged.
        TrustError: the source cannot be signed.
    """
    if not MODEL_NAME.fullmatch(name):
        raise DocumentRefused("model", f"{name!a} is no name for a model", hint="use letters, digits, '.', '_', '-'")
    _remove_leftovers(layout, name)
    wanted = hash_folder(source, skip=_SKIP)
    installed = _read_manifest(layout, name, trust_root)
    if installed is not None and installed.files == wanted:
        return _renew_approval(layout, name, installed, source, keys, trust_root, now)
    manifest = _stage(layout, name, source, wanted, keys, trust_root)
    seq = _approve(layout, name, manifest, source, keys, now)
    _swap(layout, name)
    return (f"model {name} installed from {source}, signed and approved (approval {seq})",)


def _read_manifest(layout: StateLayout, name: str, trust_root: TrustRoot) -> ModelManifest | None:
    folder = layout.model(name)
    if not folder.exists():
        return None
    try:
        raw = read_private(folder / SIGNATURE_NAME)
        return verify_signature(raw, trust_root.keys_for(Role.MODEL_SIGNER))
    except (TrustError, StateMissing) as refusal:
        raise StateCorrupt(
            folder / SIGNATURE_NAME, str(refusal), hint=f"remove {folder} and start again: it is installed anew"
        ) from refusal


def _stage(
    layout: StateLayout,
    name: str,
    source: Path,
    wanted: Mapping[str, str],
    keys: DevelopmentKeys,
    trust_root: TrustRoot,
) -> ModelManifest:
    staged = make_folder(_staged(layout, name))
    copied = {}
    for file in wanted:
        make_folder((staged / file).parent)
        copied[file] = copy_file(source, file, staged / file)
    signature = sign_digests(name, copied, keys.model_signer)
    write_private(staged / SIGNATURE_NAME, signature)
    flush_tree(staged)
    return verify_signature(signature, trust_root.keys_for(Role.MODEL_SIGNER))


def _renew_approval(
    layout: StateLayout,
    name: str,
    manifest: ModelManifest,
    source: Path,
    keys: DevelopmentKeys,
    trust_root: TrustRoot,
    now: datetime,
) -> tuple[str, ...]:
    envelopes = read_approvals(layout, name)
    if envelopes:
        newest = layout.approval(name, newest_approval(layout, name))
        try:
            approval = open_approvals(
                envelopes,
                trusted_keys=trust_root.keys_for(Role.MODEL_APPROVER),
                threshold=trust_root.threshold(Role.MODEL_APPROVER),
            )
        except TrustError as refusal:
            raise StateCorrupt(
                newest, refusal.message, hint=f"remove {newest} and start again: the model is approved anew"
            ) from refusal
        ends = parse_time(approval.expires_at, str(newest))
        if approval.root == manifest.root and now < ends - RENEWED_BEFORE_END:
            return ()
    return (f"model {name} approved anew (approval {_approve(layout, name, manifest, source, keys, now)})",)


def _approve(
    layout: StateLayout, name: str, manifest: ModelManifest, source: Path, keys: DevelopmentKeys, now: datetime
) -> int:
    seq = newest_approval(layout, name) + 1
    terms = ApprovalTerms(
        name=name,
        version=manifest.root[:12],
        seq=seq,
        root=manifest.root,
        origin=f"development provisioning from {source}",
        licence=f"see {LICENCE}" if LICENCE in manifest.files else "not stated",
        intended_use="trying out this appliance on the machine that made its state",
        excluded_use="everything else; this approval was given by a program, not by people",
        max_label=MAX_LABEL,
        tenants=(TENANT,),
        expires_at=format_time(now + APPROVED_FOR),
        evaluation_sha256=manifest.files.get(EVALUATION, ""),
    )
    staged = make_folder(layout.approvals(name) / ".staged")
    for approver in keys.approvers:
        write_private(staged / f"{approver.verifying_key.key_id}.json", sign_approval(terms, approver))
    flush_folder(staged)
    staged.rename(layout.approval(name, seq))
    flush_folder(layout.approvals(name))
    return seq


def _swap(layout: StateLayout, name: str) -> None:
    if layout.model(name).exists():
        layout.model(name).rename(_aside(layout, name))
    _staged(layout, name).rename(layout.model(name))
    flush_folder(layout.models)
    _remove_leftovers(layout, name)


def _remove_leftovers(layout: StateLayout, name: str) -> None:
    for leftover in (_staged(layout, name), _aside(layout, name), layout.approvals(name) / ".staged"):
        if leftover.exists():
            shutil.rmtree(leftover)


def _staged(layout: StateLayout, name: str) -> Path:
    return layout.models / f".{name}.staged"


def _aside(layout: StateLayout, name: str) -> Path:
    return layout.models / f".{name}.aside"
