"""Whose keys the commitments are made under."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from walk_bench import DEVELOPER, WalkBench

from appliance.audit_trail import key_subject
from audit.content import Commitment

@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WalkBench]:
    """One walk on a real log."""
    made = WalkBench(tmp_path)
    yield made
    made.close()


async def test_the_same_id_in_two_tenants_is_two_people(bench: WalkBench):
    """Erasing one tenant's `dana` takes nothing from the other tenant's."""
    other = replace(DEVELOPER, tenant="plant-2")
    ours, theirs = (bench.trail.commitment(who, "r", "prompt", b"hello") for who in (DEVELOPER, other))
    assert ours["key_id"] != theirs["key_id"]
    assert bench.trail.commitment(DEVELOPER, "r2", "prompt", b"x")["key_id"] == ours["key_id"]
    keyring = bench.trail._keyring
    assert keyring.destroy(key_subject(DEVELOPER)) == (ours["key_id"],)
    assert keyring.check(Commitment(theirs["key_id"], theirs["hmac"]), "r", "prompt", b"hello")


def test_no_two_people_have_one_name():
    """Tenant and id do not run into one another."""
    first, second = replace(DEVELOPER, tenant="a", id='b","c'), replace(DEVELOPER, tenant='a","b', id="c")
    assert key_subject(first) != key_subject(second)
