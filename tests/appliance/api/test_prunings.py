"""Retention and pruning through the perimeter: two people, a verified export, and everything that stands in the way."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from perimeter_bench import PerimeterBench
from walk_bench import SIGNER, Fault

from appliance.audit_trail import SYSTEM, Kind
from appliance.identity.principal import Principal
from appliance.keeping.pruning import export_digest
from appliance.keeping.retention_profiles import RetentionFloor
from appliance.remembered import require_approval_not_older
from appliance.settings import Settings
from appliance.state.errors import StateCorrupt
from audit.errors import EntryPruned
from audit.export import export_log
from audit.reader import EntryFilter

NO_FLOOR = RetentionFloor(("none",), 0, 0)
"""Of no profile there is: so that a test's entries are old enough."""
FILLER = Principal("filler", "Service", "plant-1", (), 0, "key-f")


@pytest.fixture
def make(make_perimeter, tmp_path: Path):
    """A perimeter with a state folder and a folder of exports."""

    def made(retention: RetentionFloor | None = NO_FLOOR, **options) -> PerimeterBench:
        state, exports = tmp_path / "state", tmp_path / "exports"
        (state / "log").mkdir(parents=True)
        (state / "log" / "verifier.vkey").write_text(SIGNER.verifier.vkey + "\n")
        (state / "log" / "verifier.vkey").chmod(0o600)
        exports.mkdir()
        settings = Settings(state_dir=state, export_dir=exports)
        return make_perimeter(settings=settings, retention=retention, **options)

    return made


async def fill(bench: PerimeterBench, num_entries: int) -> None:
    """Grow the log by so many entries."""
    trail = bench.walk_bench.trail
    await asyncio.gather(*(trail.append(Kind.LOG_READ, FILLER, f"f{i}", {}) for i in range(num_entries)))


async def post(bench: PerimeterBench, path: str, body=None, role: str = "operator"):
    """Ask with one role's key."""
    async with bench.client(role) as client:
        return await client.post(path, json=body)


def code(answer) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


def exported(bench: PerimeterBench, name: str = "e1") -> dict:
    """Export the log where the appliance looks; give what a proposal says of it."""
    folder = bench.appliance.settings.export_dir / name
    export_log(bench.walk_bench.path, folder, SIGNER.verifier)
    return {"export": name, "digest": export_digest(folder), "reason": "disk"}


async def test_entries_are_pruned_by_two_people_on_a_verified_export(make):
    """Proposed by the operator, approved by the officer: gone, counted, and the log verifies."""
    bench = make()
    await fill(bench, 600)
    old = bench.reader.entry(3)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 512, **exported(bench)})
    assert answer.status_code == 200, answer.text
    proposal = answer.json()["proposal"]
    assert (await post(bench, f"/audit/prunings/{proposal}/approve", role="operator")).status_code == 403
    done = await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")
    assert done.json() == {"pruned": "leaf", "below": 512}
    (pruned,) = bench.reader.entries(EntryFilter(kind="log:pruned")).entries
    assert done.headers["x-cloister-receipt"].startswith(f"{pruned.index}:")
    assert pruned.leaf.event.facts["minimum_index"] == 512
    assert pruned.leaf.event.facts["proposer"] == "operator"
    with pytest.raises(EntryPruned):
        bench.reader.entry(3)
    assert bench.reader.entry(512).index == 512
    again = await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")
    assert code(again) == (409, "proposal_taken_up")
    assert bench.walk_bench.verify().ok
    assert old.index == 3


async def test_contents_go_by_their_own_clock(make):
    """Under the AI Act's profile entries are too young, contents are not; the leaf keeps its digest."""
    bench = make(retention=None)
    await fill(bench, 300)
    ask = exported(bench)
    assert code(await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **ask})) == (409, "below_retention")
    proposal = (await post(bench, "/audit/prunings", {"what": "content", "below": 200, **ask})).json()["proposal"]
    done = await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")
    assert done.json() == {"pruned": "content", "below": 200}
    assert bench.reader.entry(3).index == 3
    assert bench.walk_bench.verify().ok


@pytest.mark.parametrize("role", ["developer", "auditor", "privacy"])
async def test_nobody_but_the_operator_proposes(make, role: str):
    """Policy says who; the officer approves and does not propose."""
    bench = make()
    await fill(bench, 300)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench)}, role)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"below": 100}, "not_whole_blocks"),
        ({"below": 1024}, "beyond_the_log"),
        ({"below": 0}, "nothing_to_prune"),
        ({"digest": "0" * 64}, "export_unverified"),
        ({"export": "no-such"}, "export_unverified"),
    ],
    ids=str,
)
async def test_what_cannot_be_pruned_is_refused_and_recorded(make, change, expected: str):
    """By a stable code, with the act."""
    bench = make()
    await fill(bench, 600)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 512, **exported(bench), **change})
    assert code(answer) == (409, expected)
    (refused,) = bench.reader.entries(EntryFilter(kind="act:refused")).entries
    assert (refused.leaf.event.facts["act"], refused.leaf.event.facts["code"]) == ("prune", expected)


@pytest.mark.parametrize("name", ["../e1", "/etc", "", ".hidden", "a/b", "e1\n"])
async def test_an_export_is_a_name_and_never_a_path(make, name: str):
    """Nobody makes the appliance read elsewhere."""
    bench = make()
    await fill(bench, 300)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench), "export": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "export")


@pytest.mark.parametrize("kind", ["flipped bit", "missing file", "another log's", "too short"])
async def test_an_export_that_is_none_of_this_log_prunes_nothing(make, kind: str, tmp_path: Path):
    """Its digest is right, and that is not enough."""
    bench = make()
    await fill(bench, 300)
    ask = exported(bench)
    folder = bench.appliance.settings.export_dir / "e1"
    bundle = next(path for path in sorted(folder.rglob("*")) if path.is_file() and "entries" in path.parts)
    expected = "export_unverified"
    if kind == "flipped bit":
        content = bytearray(bundle.read_bytes())
        content[200] ^= 1
        bundle.write_bytes(content)
    elif kind == "missing file":
        bundle.unlink()
    elif kind == "another log's":
        (tmp_path / "other").mkdir()
        other = PerimeterBench(tmp_path / "other")
        await fill(other, 300)
        shutil.rmtree(folder)
        export_log(other.walk_bench.path, folder, SIGNER.verifier)
        other.close()
    else:
        await fill(bench, 300)
        expected = "export_too_short"
    ask["digest"] = export_digest(folder)
    below = 512 if kind == "too short" else 256
    assert code(await post(bench, "/audit/prunings", {"what": "leaf", "below": below, **ask})) == (409, expected)


@pytest.mark.parametrize("kind", ["gone", "altered", "another export"])
async def test_an_export_that_changed_after_the_proposal_prunes_nothing(make, kind: str):
    """Verified again at the approval: what the first person saw must still be there."""
    bench = make()
    await fill(bench, 300)
    proposal = (await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench)})).json()[
        "proposal"
    ]
    folder = bench.appliance.settings.export_dir / "e1"
    if kind == "altered":
        checkpoint = next(folder.rglob("checkpoint"))
        checkpoint.write_bytes(checkpoint.read_bytes() + b"\n")
    else:
        shutil.rmtree(folder)
    if kind == "another export":
        exported(bench)
    answer = await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")
    assert code(answer) == (409, "export_unverified")
    assert bench.reader.floors().leaf == 0


@pytest.mark.parametrize("scope", [{"subject": "whoever"}, {"tenant": "any"}, {"first": 255, "last": 300}], ids=str)
async def test_a_hold_beats_retention(make, scope):
    """At the proposal, and again at the approval when it came in between."""
    bench = make()
    await fill(bench, 300)
    ask = {"what": "leaf", "below": 256, **exported(bench)}
    proposal = (await post(bench, "/audit/prunings", ask)).json()["proposal"]
    assert (await post(bench, "/audit/holds", {**scope, "reason": "x"}, "privacy")).status_code == 200
    assert code(await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")) == (409, "under_hold")
    assert code(await post(bench, "/audit/prunings", ask)) == (409, "under_hold")
    assert bench.reader.floors().leaf == 0


async def test_a_hold_beyond_the_range_keeps_nothing_below_it(make):
    """From its first entry on."""
    bench = make()
    await fill(bench, 300)
    ask = {"what": "leaf", "below": 256, **exported(bench)}
    await post(bench, "/audit/holds", {"first": 256, "last": 300, "reason": "x"}, "privacy")
    assert (await post(bench, "/audit/prunings", ask)).status_code == 200


async def test_what_the_next_start_compares_itself_with_stays(make):
    """A revocation of a key that has not ended by itself, too: pruned, an older key file would bring it back."""
    bench = make()
    async with bench.client("operator") as client:
        await client.post(f"/keys/{bench.key_ids['developer']}/revoke")
    await fill(bench, 300)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench)})
    assert code(answer) == (409, "still_needed")


async def test_the_approval_of_a_model_that_was_replaced_is_remembered_after_two_prunings(make, tmp_path: Path):
    """Its older approval, put back beside its folder, is refused as it was before."""
    bench = make()
    trail = bench.walk_bench.trail
    for seq in (4, 5):
        await trail.append(Kind.MODEL_LOADED, SYSTEM, "ab" * 32, {"model": "retired", "approval_seq": seq})
    for below in (256, 768):
        await fill(bench, 400)
        await trail.append(Kind.MODEL_LOADED, SYSTEM, "cd" * 32, {"model": "current", "approval_seq": 9})
        ask = {"what": "leaf", "below": below, **exported(bench, f"e{below}")}
        proposal = (await post(bench, "/audit/prunings", ask)).json()["proposal"]
        assert (await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")).status_code == 200
    with pytest.raises(EntryPruned):
        bench.reader.entry(700)
    require_approval_not_older(bench.reader, tmp_path, "retired", 5)
    with pytest.raises(StateCorrupt, match="number 5 was in force"):
        require_approval_not_older(bench.reader, tmp_path, "retired", 4)


async def test_an_erasure_that_is_not_done_is_not_forgotten(make):
    """A start must still find it, to finish it."""
    bench = make()
    facts = {"key_ids": ["k1"], "reason": "x", "subject_tenant": "plant-1"}
    await bench.walk_bench.trail.append(Kind.SUBJECT_ERASING, SYSTEM, "alice", facts)
    await fill(bench, 300)
    answer = await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench)})
    assert code(answer) == (409, "still_needed")


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_pruning_that_fails_is_whole_or_not_at_all(make, fault: Fault):
    """Fault pair at `log:pruned`: the floor rises with its leaf or neither does."""
    bench = make()
    await fill(bench, 300)
    proposal = (await post(bench, "/audit/prunings", {"what": "leaf", "below": 256, **exported(bench)})).json()[
        "proposal"
    ]
    sink = bench.walk_bench.sink
    sink._fail_at, sink._fault = sink.num_appends, fault
    assert (await post(bench, f"/audit/prunings/{proposal}/approve", role="privacy")).status_code == 503
    assert bench.reader.floors().leaf == (256 if fault == "persisted" else 0)
    assert len(bench.reader.entries(EntryFilter(kind="log:pruned")).entries) == (1 if fault == "persisted" else 0)
    assert bench.walk_bench.verify().ok


async def test_retention_shows_floor_holds_and_what_could_go(make):
    """As the officer, the auditor and the operator see it."""
    bench = make(retention=None)
    await fill(bench, 300)
    hold = (await post(bench, "/audit/holds", {"first": 100, "last": 120, "reason": "case 9"}, "privacy")).json()[
        "hold"
    ]
    for role in ("privacy", "auditor", "operator"):
        async with bench.client(role) as client:
            body = (await client.get("/audit/retention")).json()
        assert body["floor"] == {"leaf_days": 183, "content_days": 0}
        assert [one["hold"] for one in body["holds"]] == [hold]
        assert body["leaf"] == {"pruned_below": 0, "old_enough_below": 0, "prunable_below": 0}
        assert body["content"]["prunable_below"] == 100
    async with bench.client("developer") as client:
        assert (await client.get("/audit/retention")).status_code == 403


async def test_a_lower_floor_is_two_peoples_word(make):
    """Proposed by the operator, approved by the officer, and only for profiles there are."""
    bench = make(retention=None)
    bad = await post(bench, "/audit/retention/lower", {"profiles": ["gdpr"], "reason": "x"})
    assert bad.status_code == 400
    answer = await post(bench, "/audit/retention/lower", {"profiles": ["ai-act"], "reason": "no more ePHI"})
    proposal = answer.json()["proposal"]
    assert (await post(bench, f"/audit/retention/{proposal}/approve", role="operator")).status_code == 403
    done = await post(bench, f"/audit/retention/{proposal}/approve", role="privacy")
    floor = {"profiles": ["ai-act"], "leaf_days": 183, "content_days": 0}
    assert done.json() == {"approved": proposal, **floor}
    (lowered,) = bench.reader.entries(EntryFilter(kind="retention:lowered")).entries
    assert {name: lowered.leaf.event.facts[name] for name in floor} == floor
