"""What travels in an evidence pack beside the log: signed files of the state whose digests the log holds, as they are.

Promise: a policy bundle travels only if its digest is one that the log says was loaded, a model's manifest only if its
root is; what the state no longer holds is named, not made up.  Never: a key, a secret, a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from appliance.audit_trail import Kind
from appliance.controls import control_map
from appliance.state.errors import StateCorrupt
from appliance.state.layout import StateLayout, parse_seq_name, seq_name
from appliance.state.opening import read_files
from audit.reader import MAX_PAGE_LEN, AuditReader, EntryFilter
from offline_bundle.errors import TrustError
from offline_bundle.model_signature import SIGNATURE_NAME, unsafe_unverified_root
from offline_bundle.policy_signature import bundle_digest

_CONTROL_MAP = Path(control_map.__file__).with_name("control_map.json")
_RESTORE = "restore it from a backup; a pack shows what was loaded, and nothing else"


@dataclass(frozen=True, slots=True)
class Attachments:
    """Name in the pack -> file, and what the log names but the state no longer holds."""

    files: Mapping[str, Path]
    absent: tuple[str, ...]


def collect_attachments(layout: StateLayout, reader: AuditReader) -> Attachments:
    """Gather what the log's `policy:loaded` and `model:loaded` entries name.

    Raises:
        StateCorrupt: a file of the state is not what the log says was loaded under its name.
    """
    files: dict[str, Path] = {}
    absent: list[str] = []
    for digest, facts in _loaded(reader, Kind.POLICY_LOADED):
        found = dict(_policy(layout, digest, facts.get("seq")))
        files |= found
        absent += [] if found else [f"policy {digest}"]
    for root, facts in _loaded(reader, Kind.MODEL_LOADED):
        found = dict(_model(layout, root, facts.get("model"), facts.get("approval_seq")))
        files |= found
        absent += [] if found else [f"model {root}"]
    files |= {f"trust/{path.name}": path for path in sorted(layout.trust.iterdir()) if path.is_file()}
    files["control-map.json"] = _CONTROL_MAP
    return Attachments(files, tuple(absent))


def _loaded(reader: AuditReader, kind: Kind) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each subject of a kind once, with the facts of its newest entry."""
    newest: dict[str, Mapping[str, object]] = {}
    after: int | None = None
    while True:
        page = reader.entries(EntryFilter(kind=kind), after=after, limit=MAX_PAGE_LEN)
        newest |= {entry.leaf.event.subject: entry.leaf.event.facts for entry in page.entries}
        after = page.next_after
        if after is None:
            break
    yield from newest.items()


def _policy(layout: StateLayout, digest: str, seq: object) -> Iterator[tuple[str, Path]]:
    if type(seq) is not int or not layout.policy_files(seq).is_dir():
        return
    folder, signatures = layout.policy_files(seq), layout.policy_signatures(seq)
    contents = read_files(folder)
    if bundle_digest({name: sha256(content).hexdigest() for name, content in contents.items()}) != digest:
        raise StateCorrupt(folder, f"it is not the bundle {digest} that was loaded as {seq}", hint=_RESTORE)
    for name in sorted(contents):
        yield f"policy/{seq_name(seq)}/files/{name}", folder / name
    for name in sorted(read_files(signatures)):
        yield f"policy/{seq_name(seq)}/signatures/{name}", signatures / name


def _model(layout: StateLayout, root: str, name: object, approval_seq: object) -> Iterator[tuple[str, Path]]:
    if not isinstance(name, str) or type(approval_seq) is not int:
        return
    signature = layout.model(name) / SIGNATURE_NAME
    if not signature.is_file():
        return
    try:
        found = unsafe_unverified_root(signature.read_bytes())
    except TrustError as refusal:
        raise StateCorrupt(signature, refusal.message, hint=_RESTORE) from refusal
    if found != root:
        return  # another model has the name today; the one of this entry is gone
    yield f"models/{name}/{SIGNATURE_NAME}", signature
    for seq in sorted(filter(None, map(parse_seq_name, _names(layout.approvals(name))))):
        folder = layout.approval(name, seq)
        for file in sorted(read_files(folder)):
            yield f"approvals/{name}/{seq_name(seq)}/{file}", folder / file


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
