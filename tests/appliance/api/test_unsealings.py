"""Content levels, checking a text, and unsealing by two people."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from perimeter_bench import PerimeterBench
from walk_bench import DEVELOPER, Fault, collect, completion

from appliance.api.unsealings import SHOWN_WITHIN_S, UNSEAL, judge_showing
from appliance.audit_trail import SYSTEM, Kind
from appliance.errors import Unavailable
from appliance.identity.principal import Principal
from appliance.two_person import steps_of
from audit.errors import KeyringUnusable
from audit.reader import EntryFilter
from policies.bundle import load_bundle, read_source_bundle

LEVELS = ("none", "metadata", "commitments", "encrypted")
PROMPT = "Once\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")


def policy_at(level: str):
    """The delivered policy with another level."""
    source = dict(read_source_bundle())
    name = "base/20-models.cedar"
    source[name] = source[name].replace(b'@log_level("commitments")', f'@log_level("{level}")'.encode())
    files = {name: content for name, content in source.items() if not name.startswith("tests/")}
    return load_bundle(files)


@pytest.fixture
def sealing(make_perimeter):
    """A perimeter whose policy obliges to encrypted content."""
    bench = make_perimeter()
    bench.walk_bench.walk._gate._engine = policy_at("encrypted")
    return bench


async def asked(bench: PerimeterBench, request_id: str = "r1", prompt: str = PROMPT) -> tuple[int, int]:
    """Have a request answered; give the indexes of its two leaves."""
    walk = bench.walk_bench
    _, error = await collect(await walk.walk.admit(walk.asking(request_id), completion(prompt)))
    assert error is None
    admitted, terminal = bench.reader.entries(EntryFilter(subject=request_id)).entries
    return admitted.index, terminal.index


async def post(bench: PerimeterBench, path: str, body=None, role: str = "auditor"):
    """Ask with one role's key."""
    async with bench.client(role) as client:
        return await client.post(path, json=body)


def code(answer) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


def kinds(bench: PerimeterBench) -> list[str]:
    """Every kind on disk that has to do with content."""
    found = [entry.leaf.event.kind for entry in bench.reader.entries(limit=1000).entries]
    return [kind for kind in found if kind.startswith(("unseal:", "content:", "act:"))]


@pytest.mark.parametrize("level", LEVELS)
async def test_each_level_keeps_what_it_says_and_nothing_more(make_perimeter, level: str):
    """The table of docs/policy.md, column by column."""
    bench = make_perimeter()
    bench.walk_bench.walk._gate._engine = policy_at(level)
    prompt_index, output_index = await asked(bench)
    admitted, terminal = (bench.reader.entry(index).leaf.event for index in (prompt_index, output_index))
    assert admitted.facts["content_level"] == level
    assert ("sampling" in admitted.facts) == (level != "none")
    assert bool(admitted.facts["commitments"]) == bool(terminal.facts["commitments"]) == (level in LEVELS[2:])
    for index, phase in ((prompt_index, "prompt"), (output_index, "output")):
        assert (bench.reader.content(index, phase) is not None) == (level == "encrypted")
    assert ("contents" in admitted.facts) == ("contents" in terminal.facts) == (level == "encrypted")
    for fact in ("source", "model_root", "prompt_tokens", "policy_digest", "key_id"):
        assert admitted.facts[fact] not in (None, ""), fact
    assert bench.walk_bench.verify().ok


async def test_no_piece_of_sealed_text_is_in_any_file(sealing):
    """What is beside the leaf is ciphertext."""
    await asked(sealing, prompt="a canary that nobody may read")
    for path in sealing.walk_bench.path.parent.glob("*"):
        assert b"canary" not in path.read_bytes(), path


async def test_what_cannot_be_sealed_is_refused_before_admission(sealing, monkeypatch):
    """503 with its code, recorded as refused, and the engine hears nothing."""

    def refused(*_, **__):
        raise KeyringUnusable(sealing.walk_bench.path, "disk I/O error", hint="look at the disk")

    monkeypatch.setattr(sealing.walk_bench.trail._keyring, "seal", refused)
    with pytest.raises(Unavailable) as raised:
        await sealing.walk_bench.walk.admit(sealing.walk_bench.asking("r1"), completion())
    assert raised.value.code == "subject_keys_unavailable"
    assert sealing.walk_bench.kinds("r1") == []
    assert sealing.walk_bench.engine.streams == []


# Checking a text

CHAT = [{"role": "user", "content": "Once"}]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (json.dumps([PROMPT], ensure_ascii=False), "as_committed"),
        (PROMPT, "one_text"),
        (PROMPT + "\n", "one_text_without_its_last_line_end"),
        (json.dumps({"model": "starter", "prompt": PROMPT, "max_tokens": 5}), "request_body"),
        (PROMPT + "x", None),
        (PROMPT.lower(), None),
        ("", None),
        (json.dumps({"model": "starter", "messages": CHAT}), None),
        ("[" * 100, None),
    ],
    ids=str,
)
async def test_a_text_is_checked_in_the_forms_that_people_have(make_perimeter, text: str, form: str | None):
    """And every check leaves its record with its outcome."""
    bench = make_perimeter()
    index, _ = await asked(bench)
    answer = await post(bench, f"/audit/entries/{index}/check", {"phase": "prompt", "text": text})
    assert answer.json() == {"index": index, "phase": "prompt", "matches": form is not None, "form": form}
    (checked,) = bench.reader.entries(EntryFilter(kind="content:checked")).entries
    facts = checked.leaf.event.facts
    assert (facts["index"], facts["outcome"]) == (index, "match" if form else "no_match")
    assert answer.headers["x-cloister-receipt"].startswith(f"{checked.index}:")
    assert not text or text not in checked.leaf_bytes.decode()


async def test_an_output_is_checked_by_its_text(make_perimeter):
    """The scripted engine says `hello`."""
    bench = make_perimeter()
    _, index = await asked(bench)
    for text, matches in (("hello", True), ("hallo", False)):
        answer = await post(bench, f"/audit/entries/{index}/check", {"phase": "output", "text": text}, "privacy")
        assert answer.json()["matches"] is matches


async def test_what_cannot_be_checked_is_said(make_perimeter):
    """No commitment, no entry, an erased subject."""
    bench = make_perimeter()
    index, _ = await asked(bench)
    check = {"phase": "output", "text": "x"}
    assert code(await post(bench, f"/audit/entries/{index}/check", check)) == (404, "commitment_not_found")
    assert code(await post(bench, "/audit/entries/99999/check", check)) == (404, "entry_not_found")
    erasure = {"subject": DEVELOPER.id, "tenant": DEVELOPER.tenant, "reason": "x"}
    assert (await post(bench, "/audit/erasures", erasure, "privacy")).status_code == 200
    answer = await post(bench, f"/audit/entries/{index}/check", {**check, "phase": "prompt"})
    assert code(answer) == (409, "subject_erased")
    assert "SubjectErased" in answer.json()["error"]["message"]


@pytest.mark.parametrize("role", ["developer", "operator"])
async def test_others_try_no_text(make_perimeter, role: str):
    """An oracle for guesses is for two roles, and recorded."""
    bench = make_perimeter()
    index, _ = await asked(bench)
    answer = await post(bench, f"/audit/entries/{index}/check", {"phase": "prompt", "text": "x"}, role)
    assert answer.status_code == 403


# Unsealing


async def proposed(bench: PerimeterBench, index: int, role: str = "auditor") -> int:
    """Propose; give the proposal's number."""
    answer = await post(bench, f"/audit/entries/{index}/unseal", {"reason": "incident 3"}, role)
    assert answer.status_code == 200, answer.text
    return answer.json()["proposal"]


@pytest.mark.parametrize(("first", "second"), [("auditor", "privacy"), ("privacy", "auditor")])
async def test_an_auditor_and_a_privacy_officer_read_it_together_once(sealing, first: str, second: str):
    """In either order; each step is a leaf; the second showing is refused."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index, first)
    assert (await post(sealing, f"/audit/unsealings/{proposal}/approve", role=second)).status_code == 200
    shown = await post(sealing, f"/audit/unsealings/{proposal}/show", role=first)
    assert shown.json() == {"index": index, "contents": {"prompt": json.dumps([PROMPT], ensure_ascii=False)}}
    assert shown.headers["cache-control"] == "no-store"
    assert code(await post(sealing, f"/audit/unsealings/{proposal}/show", role=first)) == (409, "shown_before")
    assert kinds(sealing) == ["unseal:proposed", "unseal:approved", "content:shown", "act:refused"]
    assert sealing.walk_bench.verify().ok


async def test_an_answer_is_unsealed_at_its_own_entry(sealing):
    """The output lies beside the terminal leaf."""
    _, index = await asked(sealing)
    proposal = await proposed(sealing, index)
    await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    shown = await post(sealing, f"/audit/unsealings/{proposal}/show")
    assert shown.json()["contents"] == {"output": '["hello"]'}


async def test_a_privacy_officer_unseals_nothing_alone(sealing):
    """Nor with a second officer: one of the two is an auditor."""
    index, _ = await asked(sealing)
    sealing.add_key("officer2", 9, owner="quinn", tenant="plant-1", roles=("privacy",))
    proposal = await proposed(sealing, index, "privacy")
    assert code(await post(sealing, f"/audit/unsealings/{proposal}/show", role="privacy")) == (409, "not_approved")
    assert code(await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")) == (403, "same_person")
    assert code(await post(sealing, f"/audit/unsealings/{proposal}/approve", role="officer2")) == (403, "roles_missing")
    assert "content:shown" not in kinds(sealing)


async def test_one_person_with_two_keys_and_both_roles_is_one_person(sealing):
    """Two keys of one owner."""
    index, _ = await asked(sealing)
    sealing.add_key("twin", 9, owner="AUDITOR", tenant="plant-1", roles=("privacy",))
    proposal = await proposed(sealing, index)
    assert code(await post(sealing, f"/audit/unsealings/{proposal}/approve", role="twin")) == (403, "same_person")


async def test_nobody_but_the_proposer_is_shown_it(sealing):
    """Neither the approver nor another auditor."""
    index, _ = await asked(sealing)
    sealing.add_key("auditor2", 9, owner="quinn", tenant="plant-1", roles=("auditor",))
    proposal = await proposed(sealing, index)
    await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    for role in ("privacy", "auditor2"):
        assert code(await post(sealing, f"/audit/unsealings/{proposal}/show", role=role)) == (403, "not_the_proposer")
    assert (await post(sealing, f"/audit/unsealings/{proposal}/show")).status_code == 200


async def test_a_replayed_approval_is_refused(sealing):
    """Before the showing and after it."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index)
    await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    again = await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    assert code(again) == (409, "proposal_taken_up")


async def test_two_approvals_and_two_showings_at_once_are_one(sealing):
    """Judged and recorded undivided: of four that race, one each."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index)
    sealing.add_key("officer2", 9, owner="quinn", tenant="plant-1", roles=("privacy",))
    roles = ("privacy", "officer2") * 2
    approvals = await asyncio.gather(
        *(post(sealing, f"/audit/unsealings/{proposal}/approve", role=role) for role in roles)
    )
    assert sorted(answer.status_code for answer in approvals) == [200, 409, 409, 409]
    showings = await asyncio.gather(*(post(sealing, f"/audit/unsealings/{proposal}/show") for _ in range(4)))
    assert sorted(answer.status_code for answer in showings) == [200, 409, 409, 409]
    assert sum("Once" in answer.text for answer in showings) == 1
    assert kinds(sealing).count("unseal:approved") == kinds(sealing).count("content:shown") == 1


@pytest.mark.parametrize(
    ("after_us", "outcome"),
    [
        (0, "Showable"),
        (SHOWN_WITHIN_S * 10**6 - 1, "Showable"),
        (SHOWN_WITHIN_S * 10**6, "NotShowable"),
        (-1, "NotShowable"),
    ],
)
async def test_an_approval_holds_for_its_time_only(sealing, after_us: int, outcome: str):
    """Open at its beginning, shut at its end, and never before it was given."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index)
    await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    steps = steps_of(sealing.reader, UNSEAL, proposal)
    approved_us = steps[1].leaf.event.ts_us
    auditor = Principal("auditor", "User", "plant-1", ("auditor",), 0, "any")
    judged = judge_showing(steps, auditor, approved_us + after_us, second_key_lives=True)
    assert type(judged).__name__ == outcome
    assert outcome == "Showable" or judged.code == "approval_expired"


async def test_a_revoked_key_neither_proposes_nor_approves(sealing):
    """A stolen key proposed and was revoked; another one approved and was."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index)
    sealing.keys.revoke(sealing.key_ids["auditor"], time.time_ns() // 1000)
    answer = await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    assert code(answer) == (409, "key_ended")
    sealing.add_key("auditor2", 9, owner="quinn", tenant="plant-1", roles=("auditor",))
    answer = await post(sealing, f"/audit/entries/{index}/unseal", {"reason": "x"}, "auditor2")
    proposal = answer.json()["proposal"]
    assert (await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")).status_code == 200
    sealing.keys.revoke(sealing.key_ids["privacy"], time.time_ns() // 1000)
    answer = await post(sealing, f"/audit/unsealings/{proposal}/show", role="auditor2")
    assert code(answer) == (409, "key_ended")
    assert "content:shown" not in kinds(sealing)


async def test_a_clock_that_is_set_back_opens_nothing_again(sealing):
    """Both times have run out, as a leaf of the log saw; then the clock goes back into them."""
    index, _ = await asked(sealing)
    waiting, shown = await proposed(sealing, index), await proposed(sealing, index)
    assert (await post(sealing, f"/audit/unsealings/{shown}/approve", role="privacy")).status_code == 200
    trail, now_us = sealing.walk_bench.trail, time.time_ns() // 1000
    clock = trail.clock
    sealing.walk_bench.writer._clock_guard.limit_us = 2**60  # as after a restart, which sees no step
    trail._clock = replace(clock, utc_us=lambda: now_us + UNSEAL.valid_for_s * 10**6)
    await trail.append(Kind.CLOCK_CHANGED, SYSTEM, "clock", {})
    trail._clock = clock
    answer = await post(sealing, f"/audit/unsealings/{waiting}/approve", role="privacy")
    assert code(answer) == (409, "proposal_expired")
    assert code(await post(sealing, f"/audit/unsealings/{shown}/show")) == (409, "approval_expired")
    assert "content:shown" not in kinds(sealing)


async def test_what_is_not_sealed_is_not_proposed(make_perimeter):
    """An entry of another level; an entry that is none."""
    bench = make_perimeter()
    index, _ = await asked(bench)
    assert code(await post(bench, f"/audit/entries/{index}/unseal", {"reason": "x"})) == (404, "content_not_found")
    assert code(await post(bench, "/audit/entries/99999/unseal", {"reason": "x"})) == (404, "entry_not_found")
    assert kinds(bench) == ["act:refused"]


async def test_after_erasure_nobody_reads_it(sealing):
    """Approved or not: `SubjectErased`."""
    index, _ = await asked(sealing)
    proposal = await proposed(sealing, index)
    await post(sealing, f"/audit/unsealings/{proposal}/approve", role="privacy")
    erasure = {"subject": DEVELOPER.id, "tenant": DEVELOPER.tenant, "reason": "x"}
    assert (await post(sealing, "/audit/erasures", erasure, "privacy")).status_code == 200
    shown = await post(sealing, f"/audit/unsealings/{proposal}/show")
    assert code(shown) == (409, "subject_erased")
    assert sealing.walk_bench.verify().ok


@pytest.mark.parametrize("fault", ["not_persisted", "persisted"])
async def test_a_showing_that_cannot_be_recorded_shows_nothing(make_perimeter, fault: Fault):
    """Fault pair at `content:shown`: no byte leaves."""
    bench = make_perimeter()
    bench.walk_bench.walk._gate._engine = policy_at("encrypted")
    index, _ = await asked(bench)
    proposal = await proposed(bench, index)
    await post(bench, f"/audit/unsealings/{proposal}/approve", role="privacy")
    sink = bench.walk_bench.sink
    sink._fail_at, sink._fault = sink.num_appends, fault
    shown = await post(bench, f"/audit/unsealings/{proposal}/show")
    assert shown.status_code == 503
    assert "Once" not in shown.text
    assert ("content:shown" in kinds(bench)) == (fault == "persisted")
    assert bench.walk_bench.verify().ok
