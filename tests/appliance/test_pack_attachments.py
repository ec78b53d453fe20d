"""What of a state travels in a pack: what the log says was loaded, checked, and never a secret."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_appliance import LiveAppliance

from appliance.pack_attachments import collect_attachments
from appliance.state.errors import StateCorrupt
from appliance.state.layout import StateLayout
from audit.reader import AuditReader


@pytest.fixture
def reader(live: LiveAppliance) -> Iterator[AuditReader]:
    """The log of a run that loaded one policy and one model."""
    with AuditReader(StateLayout(live.state_dir).audit_db) as opened:
        yield opened


@pytest.fixture
def layout(live: LiveAppliance, tmp_path: Path) -> StateLayout:
    """A copy of what of the state may travel."""
    for name in ("policy", "approvals", "trust"):
        shutil.copytree(live.state_dir / name, tmp_path / name)
    (tmp_path / "models" / "starter").mkdir(parents=True, mode=0o700)
    signature = StateLayout(tmp_path).model("starter") / "model.sig"
    shutil.copyfile(live.state_dir / "models" / "starter" / "model.sig", signature)
    signature.chmod(0o600)
    return StateLayout(tmp_path)


def test_what_was_loaded_travels_as_it_is(layout: StateLayout, reader: AuditReader):
    """Bundle and signatures, manifest and approvals, trust roots, the control map; nothing is absent."""
    attached = collect_attachments(layout, reader)
    assert attached.absent == ()
    kinds = {name.split("/")[0] for name in attached.files}
    assert kinds == {"approvals", "control-map.json", "models", "policy", "trust"}
    assert any(name.startswith("policy/000001/signatures/") for name in attached.files)
    assert any(name.startswith("approvals/starter/000001/") for name in attached.files)
    assert json.loads(attached.files["control-map.json"].read_bytes())


def test_a_changed_policy_file_is_refused_by_its_folder(layout: StateLayout, reader: AuditReader):
    """A pack shows what was loaded, and nothing else."""
    file = layout.policy_files(1) / "base" / "00-invariants.cedar"
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(StateCorrupt, match="not the bundle"):
        collect_attachments(layout, reader)


def test_a_damaged_manifest_is_refused(layout: StateLayout, reader: AuditReader):
    """Not JSON any more."""
    signature = layout.model("starter") / "model.sig"
    signature.write_bytes(signature.read_bytes()[:-1])
    with pytest.raises(StateCorrupt):
        collect_attachments(layout, reader)


def test_what_is_gone_is_named(layout: StateLayout, reader: AuditReader):
    """Bundle and model by the digests that the log holds."""
    shutil.rmtree(layout.policy_files(1))
    (layout.model("starter") / "model.sig").unlink()
    absent = collect_attachments(layout, reader).absent
    assert [name.split()[0] for name in absent] == ["policy", "model"]
    assert all(len(name.split()[1]) == 64 for name in absent)
