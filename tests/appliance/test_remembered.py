"""An older copy of a file in the state folder is not a way back: the log remembers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from identity_keys import NOW_US, make_record
from walk_bench import WalkBench

from appliance.audit_trail import SYSTEM, Kind
from appliance.identity.api_keys import mint
from appliance.identity.key_store import KeyStore
from appliance.remembered import require_approval_not_older, require_policy_not_older, revoke_again
from appliance.state.errors import StateCorrupt


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """A real log to remember in."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


async def test_a_revoked_key_stays_revoked_after_an_old_key_database_came_back(bench: WalkBench, tmp_path: Path):
    """Every key that the log says was revoked is revoked again; others are left alone, and a second look finds none."""
    keys = KeyStore.create(tmp_path / "keys.db")
    minted = [mint("dev", random.Random(number).randbytes) for number in range(3)]
    for key in minted:
        keys.add(make_record(key))
    for key in minted[:2]:
        await bench.trail.append(Kind.KEY_REVOKED, SYSTEM, key.key_id, {})
    await bench.trail.append(Kind.KEY_REVOKED, SYSTEM, "a key of long ago", {})
    keys.revoke(minted[0].key_id, NOW_US)
    assert revoke_again(bench.reader, keys) == (minted[1].key_id,)
    assert [keys.find(key.key_id).revoked_at_us is None for key in minted] == [False, False, True]
    assert keys.find(minted[0].key_id).revoked_at_us == NOW_US
    assert revoke_again(bench.reader, keys) == ()
    keys.close()


async def test_an_older_policy_bundle_is_refused(bench: WalkBench, tmp_path: Path):
    """The newest bundle that was in force is the least that may be loaded; the first start has nothing to remember."""
    require_policy_not_older(bench.reader, tmp_path, 1)
    for seq in (1, 2, 3):
        await bench.trail.append(Kind.POLICY_LOADED, SYSTEM, "digest", {"seq": seq})
    require_policy_not_older(bench.reader, tmp_path, 3)
    require_policy_not_older(bench.reader, tmp_path, 4)
    with pytest.raises(StateCorrupt, match=r"number 2.*number 3"):
        require_policy_not_older(bench.reader, tmp_path, 2)


async def test_an_older_approval_of_the_same_model_is_refused(bench: WalkBench, tmp_path: Path):
    """Each model remembers its own approvals."""
    await bench.trail.append(Kind.MODEL_LOADED, SYSTEM, "root", {"model": "starter", "approval_seq": 4})
    await bench.trail.append(Kind.MODEL_LOADED, SYSTEM, "root", {"model": "other", "approval_seq": 9})
    require_approval_not_older(bench.reader, tmp_path, "starter", 4)
    require_approval_not_older(bench.reader, tmp_path, "unknown", 1)
    with pytest.raises(StateCorrupt, match="approval of starter"):
        require_approval_not_older(bench.reader, tmp_path, "starter", 3)
