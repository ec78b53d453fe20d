"""Each report on a log with a known story, sound and with one fault planted."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from audit_log_builder import build_log, request_events
from report_story import MODEL, POLICY, SECOND_US, START_US, Story, scope_of, told

from appliance.reconciliation import Reconciliation
from appliance.reports.access import log_access
from appliance.reports.clock import clock_report
from appliance.reports.erasures import erasure_report
from appliance.reports.health import audit_health, health_filter
from appliance.reports.incident import incident_extract
from appliance.reports.integrity import KeptHead, Verification, integrity_report
from appliance.reports.recreation import Sample, drawn_indexes, recreation_test
from appliance.reports.reviews import review_report
from appliance.reports.scope import MAX_ROWS
from appliance.reports.verifying import verify_for_report
from audit.checkpoint import Checkpoint, LogSigner, sign_checkpoint
from audit.merkle import EMPTY_EDGE, node_hash
from audit.proof import EntryProof
from audit.reader import AuditReader
from audit.report import Finding, Place, Report
from audit.search.expression import shown_time
from audit.search.leaf_values import holds

SIGNER = LogSigner.from_seed("test.log/reports", b"\x05" * 32)


NO_COUNTERS = Reconciliation(())


def meant(expression, entries):
    """What the report's own filter lets through."""
    return [entry for entry in entries if holds(expression, entry.leaf)]


# R6


def in_order(entries):
    """Whether the run before a start ended with its word, as the log has it."""
    return lambda start: start == 0 or entries[start - 1].leaf.event.kind == "appliance:stopped"


def test_a_crash_is_counted_whatever_the_window_holds_of_the_run_before():
    """Nothing that the report reads, here: the crash is not forgotten."""
    entries = told().entries
    start = next(entry.index for entry in entries if entry.leaf.place.epoch == 3)
    for first in (start - 1, start):
        read = meant(health_filter(scope_of(entries)), entries[first:])
        report = audit_health(iter(read), scope_of(entries), in_order(entries))
        assert (report.starts, report.crashes) == (1, 1), first


def test_a_disk_that_fills_is_a_trouble():
    """The warning of NIST AU-5(1) is in the report that is named for it."""
    story = told()
    index = story.tell("log:filling", "log", percent=90)
    report = audit_health(iter(story.entries), scope_of(story.entries), in_order(story.entries))
    assert f"entry {index}: log:filling (percent=90)" in report.findings


def test_health_counts_who_was_turned_away_and_what_died():
    """Suppressed refusals count, a crash is named."""
    entries = told().entries
    read = meant(health_filter(scope_of(entries)), entries)
    report = audit_health(iter(read), scope_of(entries), in_order(entries))
    assert (report.refused_credentials, report.refused_by_reason) == (6, {"unknown_key": 3})
    assert report.refused_by_source == {"10.9.9.9": 3}
    assert report.failed_requests == {"queue_full": 1}
    assert (report.abandoned_requests, report.starts, report.crashes) == (1, 3, 1)
    assert [trouble.kind for trouble in report.troubles] == ["engine:died"]
    crash = next(entry.index for entry in entries if entry.leaf.place.epoch == 3)
    assert f"entry {crash}: the run before ended without a word" in report.findings


def test_a_sink_or_anchor_that_fails_is_a_trouble():
    """Whoever adds such a kind is reported without being asked."""
    story = told()
    index = story.tell("export:failing", "siem", reason="no route", destination="udp://10.0.0.9")
    report = audit_health(iter(story.entries), scope_of(story.entries), in_order(story.entries))
    assert f"entry {index}: export:failing (reason=no route, destination=udp://10.0.0.9)" in report.findings


def test_a_stranger_cannot_make_the_report_grow():
    """As many addresses as there are: the frequent ones stay."""
    story = Story()
    for number in range(5_000):
        story.tell("auth:refused", f"r{number}", reason="unknown_key", source=f"10.0.{number // 250}.{number % 250}")
        if number % 100 == 0:
            story.tell("auth:refused", f"s{number}", reason="unknown_key", source="10.9.9.9")
    report = audit_health(iter(story.entries), scope_of(story.entries), in_order(story.entries))
    assert len(report.refused_by_source) == 10
    assert "10.9.9.9" in report.refused_by_source


# R7


def test_a_sound_clock_has_no_findings():
    """Restarts included."""
    entries = told().entries
    report = clock_report(iter(entries), scope_of(entries))
    assert (report.findings, report.largest_drift_ms, report.num_runs, report.times_out_of_order) == ((), 0, 3, 0)


@pytest.mark.parametrize("step_s", [3_600, -3_600, 2, -2])
def test_a_clock_that_was_set_is_named(step_s):
    """Forwards and backwards, by how much and where."""
    story = told()
    story.restart()
    story.start()
    story.wall_us += step_s * SECOND_US
    index = story.tell("log:read", actor="avery", role="auditor")
    report = clock_report(iter(story.entries), scope_of(story.entries))
    assert report.findings == (f"entry {index}: the clock was set by {step_s:+d}.000 s",)
    assert report.largest_drift_ms == abs(step_s) * 1_000
    assert report.times_out_of_order == (step_s < -1)


@pytest.mark.parametrize("step_s", [86_400 * 365, 60, -60])
def test_a_clock_set_across_a_restart_of_one_boot_is_named(step_s):
    """Forwards as well, which would make young entries old: the boot's monotonic clock went on."""
    story = told()
    story.place = replace(story.place, epoch=story.place.epoch + 1)
    story.wall_us += step_s * SECOND_US
    index = story.tell("appliance:started")
    report = clock_report(iter(story.entries), scope_of(story.entries))
    assert report.findings == (f"entry {index}: the clock was set by {step_s:+d}.000 s across a restart",)


def test_a_clock_that_lost_its_source_is_named():
    """And what the kernel said is counted."""
    story = told()
    index = story.tell("clock:changed", "clock", before="synchronised", now="unsynchronised", clock_state="unknown")
    story.tell("clock:changed", "clock", before="unsynchronised", now="synchronised", clock_state="synchronised")
    report = clock_report(iter(story.entries), scope_of(story.entries))
    assert report.findings == (f"entry {index}: the clock became unsynchronised",)
    assert report.states == {"not stated": len(story.entries) - 2, "synchronised": 1, "unknown": 1}


def test_a_clock_set_back_across_a_boot_is_named():
    """Forwards nobody can tell it from time that passed."""
    story = told()
    story.restart()
    story.wall_us -= 60 * SECOND_US
    index = story.tell("appliance:started")
    report = clock_report(iter(story.entries), scope_of(story.entries))
    assert report.findings == (f"entry {index}: the clock was set by -59.000 s across a restart",)


# R8


def test_integrity_cites_the_verdict_and_the_heads():
    """What verification found stands in the report word by word."""
    entries = told().entries
    note = sign_checkpoint(Checkpoint(SIGNER.name, len(entries), b"\x01" * 32), [SIGNER])
    finding = Finding(Place.LEAF_BYTES, 7, "", "hash differs")
    verdict = Report("audit.db", 30, 12, 30, "01" * 32, (finding,), 0, (("req-8", 3),), ("a note",))
    kept = (KeptHead("/media/anchors/7.checkpoint", 7, "01" * 32, (SIGNER.name, "witness")),)
    found = Verification(verdict, kept, ("/media/other holds nothing",))
    report = integrity_report(found, note, iter(entries), scope_of(entries))
    assert (report.verified, report.findings) == (False, ("leaf bytes 7: hash differs",))
    assert (report.signed_by, report.head_note, report.unfinished) == ((SIGNER.name,), note, 1)
    assert (report.kept_heads, report.notes) == (kept, ("a note", "/media/other holds nothing"))
    sound = dataclasses.replace(found, verdict=dataclasses.replace(verdict, findings=()))
    assert integrity_report(sound, note, iter(entries), scope_of(entries)).verified


def test_a_log_is_verified_against_the_heads_that_were_carried_out(tmp_path):
    """A head of the log counts, a place without one is a note, and a head that the log never had is a finding."""
    events = request_events(4)
    build_log(tmp_path / "audit.db", events, [3, 4], SIGNER)
    with AuditReader(tmp_path / "audit.db") as reader:
        note = reader.checkpoint(3).note
    for name in ("sound", "empty", "forked"):
        (tmp_path / name).mkdir()
    (tmp_path / "sound/3.checkpoint").write_text(note)
    forked = sign_checkpoint(Checkpoint(SIGNER.name, 3, b"\x01" * 32), [SIGNER])
    (tmp_path / "forked/3.checkpoint").write_text(forked)
    keys = [SIGNER.verifier]
    places = [tmp_path / "sound", tmp_path / "empty", tmp_path / "absent"]
    sound = verify_for_report(tmp_path / "audit.db", keys, places)
    assert sound.verdict.ok
    assert [(head.size, head.signed_by) for head in sound.kept] == [(3, (SIGNER.name,))]
    assert [note.split(" holds")[0] for note in sound.notes] == [str(place) for place in places[1:]]
    assert not verify_for_report(tmp_path / "audit.db", keys, [tmp_path / "forked"]).verdict.ok


# R9


def test_an_incident_is_copied_whole_and_bounded():
    """Leaf by leaf, with what it ran on; beyond the bound it is counted."""
    story = told()
    scope = scope_of(story.entries, subject="req-1")
    report = incident_extract((entry for entry in story.entries if entry.leaf.event.subject == "req-1"), scope)
    assert report.kinds == {"request:admitted": 1, "request:completed": 1}
    assert (report.model_roots, report.policy_digests) == ((MODEL,), (POLICY,))
    assert [one.leaf.encode() for one in report.entries] == [
        entry.leaf_bytes for entry in story.entries if entry.leaf.event.subject == "req-1"
    ]
    many = incident_extract((story.entries[0] for _ in range(MAX_ROWS + 7)), scope)
    assert (len(many.entries), many.entries_left_out, many.num_entries) == (MAX_ROWS, 7, MAX_ROWS + 7)


# R10


def test_reviews_and_the_days_without_one():
    """Adjacent and overlapping reviews are one stretch; the rest of the window is named."""
    hour = 3_600 * SECOND_US
    story = told()
    story.pass_time(86_400)
    for low, high in ((2, 4), (4, 5), (9, 12), (10, 11)):
        window = {"from_us": START_US + low * hour, "until_us": START_US + high * hour}
        story.tell(
            "review:signed_off",
            actor="avery",
            role="auditor",
            outcome="no_findings",
            notes_sha256="0" * 64,
            examined=[3],
            **window,
        )
    scope = scope_of(story.entries, until_us=START_US + 10 * hour)
    reviews = [entry for entry in story.entries if entry.leaf.event.kind == "review:signed_off"]
    report = review_report(iter(reviews), scope, scope.until_us)
    assert report.num_reviews == 3, "the one after the window covers nothing of it"
    assert [(one.covers_from[11:16], one.covers_until[11:16]) for one in report.not_reviewed] == [
        ("00:00", "02:00"),
        ("05:00", "09:00"),
    ]
    assert review_report(iter(()), scope, scope.until_us).findings == (
        "nobody has reviewed 2026-11-01T00:00:00.000000Z to 2026-11-01T10:00:00.000000Z",
    )


def test_nobody_reviews_what_is_still_to_come():
    """A signature until next year covers what there was when it was given."""
    story = told()
    window = {"from_us": START_US, "until_us": START_US + 365 * 86_400 * SECOND_US}
    index = story.tell("review:signed_off", actor="avery", role="auditor", outcome="no_findings", **window)
    later = {"from_us": START_US + 80_000 * SECOND_US, "until_us": START_US + 90_000 * SECOND_US}
    story.tell("review:signed_off", actor="avery", role="auditor", outcome="no_findings", **later)
    reviews = [entry for entry in story.entries if entry.leaf.event.kind == "review:signed_off"]
    (open_,) = review_report(iter(reviews), scope_of(story.entries), story.wall_us).not_reviewed
    assert open_.covers_from == shown_time(story.entries[index].leaf.event.ts_us)
    assert open_.covers_until == shown_time(story.wall_us)


# R11


def test_access_lists_readers_and_runs_cut_short():
    """A run whose result was recorded is finished, this very run is not held against itself."""
    story = told()
    cut_short = story.tell("report:run", "req-8", actor="avery", role="auditor", report="R1", query_sha256="1" * 64)
    finished = story.tell("report:run", "req-9", actor="avery", role="auditor", report="R2", query_sha256="2" * 64)
    story.tell("report:made", "req-9", actor="avery", role="auditor", report="R2", run_index=finished)
    story.tell("report:run", "req-10", actor="avery", role="auditor", report="R11", query_sha256="3" * 64)
    report = log_access(
        (entry for entry in story.entries if entry.leaf.event.actor == "avery"), scope_of(story.entries)
    )
    assert report.kinds == {"log:read": 1, "report:run": 3, "report:made": 1}
    assert [(one.actor, one.role, one.num_accesses) for one in report.readers] == [("avery", "auditor", 5)]
    assert report.accesses[0].query == "kind=x:y"
    assert report.unfinished_runs == (cut_short,)
    assert report.findings == (f"entry {cut_short}: a report was run and its result never recorded",)


# R12


def _samples(entries):
    edge, _ = EMPTY_EDGE.append([entry.leaf_hash for entry in entries])
    note = sign_checkpoint(Checkpoint(SIGNER.name, edge.size, edge.root()), [SIGNER])
    hashes = [entry.leaf_hash for entry in entries]
    return [Sample(entry, EntryProof(entry.index, _path(hashes, entry.index), note)) for entry in entries]


def _path(hashes, index):
    """The inclusion path, said from the definition in RFC 6962."""

    def root(part):
        if len(part) == 1:
            return part[0]
        split = 1 << (len(part) - 1).bit_length() - 1
        return node_hash(root(part[:split]), root(part[split:]))

    if len(hashes) == 1:
        return ()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return (*_path(hashes[:split], index), root(hashes[split:]))
    return (*_path(hashes[split:], index - split), root(hashes[:split]))


def test_records_are_made_again_and_proven():
    """All of them, bit for bit."""
    entries = told().entries
    report = recreation_test(_samples(entries), [SIGNER.verifier], 7)
    assert report.num_drawn == report.num_equal == report.num_proven == len(entries)
    assert report.findings == ()


def test_a_record_that_is_not_what_the_head_signed_is_named():
    """Another leaf in its place: equal to itself, and in no tree."""
    samples = _samples(told().entries)
    swapped = [Sample(samples[1].entry, samples[2].proof)]
    report = recreation_test(swapped, [SIGNER.verifier], 7)
    assert (report.num_equal, report.num_proven) == (1, 0)
    assert len(report.findings) == 1


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (1_000, 25)])
def test_a_sample_is_drawn_by_its_seed_alone(count, expected):
    """The same for everybody, another for another seed, never more than there is, and only of the window."""
    entries = told().entries
    scope = scope_of(entries, first_index=3, last_index=27)
    drawn = drawn_indexes(7, count, scope)
    assert drawn == drawn_indexes(7, count, scope)
    assert (len(drawn), len(set(drawn))) == (expected, expected)
    assert set(drawn) <= set(range(3, 28))
    assert count > 25 or drawn != drawn_indexes(8, count, scope)
    assert drawn_indexes(7, count, scope_of(entries, first_index=5, last_index=-1)) == ()


# R13


def test_an_erasure_carries_its_leaf_and_proof():
    """Decided and done, and one that is not done yet."""
    story = told()
    decided = story.tell(
        "subject:erasing",
        "dana",
        actor="pia",
        role="privacy",
        key_ids=["k1"],
        reason="asked on 2026-10-30",
        subject_tenant="plant",
    )
    done = story.tell(
        "subject:erased",
        "dana",
        actor="pia",
        role="privacy",
        erasing_index=decided,
        key_ids=["k1"],
        subject_tenant="plant",
        why="asked",
    )
    waiting = story.tell("subject:erasing", "omar", actor="pia", role="privacy", key_ids=["k2"], subject_tenant="plant")
    samples = [one for one in _samples(story.entries) if one.entry.leaf.event.kind.startswith("subject:")]
    report = erasure_report(iter(samples), scope_of(story.entries))
    (certificate,) = report.certificates
    assert (certificate.index, certificate.key_ids, certificate.subject_tenant) == (done, ["k1"], "plant")
    assert (certificate.reason, certificate.why) == ("asked on 2026-10-30", "asked")
    proof = EntryProof.from_text(certificate.proof)
    assert proof.verify(certificate.leaf.encode(), [SIGNER.verifier]).size == len(story.entries)
    assert report.unfinished == (waiting,)
    assert report.findings == (f"entry {waiting}: the erasure of omar was decided and is not done",)
