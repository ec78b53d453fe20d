"""Each report on a log with a known story, sound and with one fault planted."""

from __future__ import annotations

import dataclasses

import pytest
from report_story import MODEL, POLICY, Story, scope_of, told

from appliance.audit_trail import PAIRING
from appliance.reconciliation import Reconciliation, reconcile
from appliance.reports.catalogue import event_catalogue
from appliance.reports.changes import change_history, changes_filter
from appliance.reports.completeness import completeness
from appliance.reports.continuity import logging_continuity
from appliance.reports.retention import retention_and_holds
from audit.checkpoint import LogSigner
from audit.search.leaf_values import holds

SIGNER = LogSigner.from_seed("test.log/reports", b"\x05" * 32)


NO_COUNTERS = Reconciliation(())


def meant(expression, entries):
    """What the report's own filter lets through."""
    return [entry for entry in entries if holds(expression, entry.leaf)]


# R1


def test_completeness_of_a_sound_log():
    """Admitted is ended, by outcome; what never was admitted stands beside it."""
    entries = told().entries
    report = completeness(iter(entries), scope_of(entries), NO_COUNTERS)
    assert (report.admitted, report.ended, report.missing_entries) == (4, 4, 0)
    assert report.outcomes == {
        "request:completed": 1,
        "request:failed": 1,
        "request:abandoned": 1,
        "request:cancelled": 1,
    }
    assert set(report.outcomes) <= PAIRING.terminals
    assert report.never_admitted == {"request:denied": 1, "request:refused": 1}
    assert (report.prompt_tokens, report.completion_tokens) == (30, 15)
    assert (report.open, report.findings) == ((), ())


def test_a_missing_terminal_is_named():
    """By subject and index."""
    story = told()
    index = story.request("req-8", end=None)
    report = completeness(iter(story.entries), scope_of(story.entries), NO_COUNTERS)
    assert (report.admitted, report.ended) == (5, 4)
    assert [(one.subject, one.index) for one in report.open] == [("req-8", index)]
    assert report.findings == (f"entry {index}: req-8 was admitted and has no end in the log",)


def test_an_end_after_the_window_still_ends_what_was_admitted_in_it():
    """And what was admitted before the window is nobody's fault in it."""
    story = Story()
    story.start()
    before = story.request("req-1", end=None)
    first = story.request("req-2", end=None)
    last = story.tell("log:read", actor="avery", role="auditor")
    until_us = story.wall_us + 1
    story.tell("request:completed", "req-2", admitted_index=first, outcome="completed")
    story.tell("request:completed", "req-1", admitted_index=before, outcome="completed")
    from_us = story.entries[first].leaf.event.ts_us
    scope = scope_of(story.entries, from_us=from_us, until_us=until_us, first_index=first, last_index=last)
    report = completeness(iter(story.entries[first:]), scope, NO_COUNTERS)
    assert (report.admitted, report.ended, report.findings) == (1, 1, ())


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_gap_is_named_wherever_it_is(place):
    """In the middle and at both ends."""
    entries = told().entries
    scope = scope_of(entries)
    gone = entries[place]
    kept = [entry for entry in entries if entry is not gone]
    expected = f"entries {gone.index} to {gone.index} are missing"
    assert expected in completeness(iter(kept), scope, NO_COUNTERS).findings
    assert expected in logging_continuity(iter(kept), scope).findings
    assert logging_continuity(iter(kept), scope).missing_entries == 1


def test_a_second_end_and_a_second_admission_are_named():
    """Both break the law of two records."""
    story = Story()
    story.start()
    admitted = story.request("req-1")
    again = story.tell("request:failed", "req-1", admitted_index=admitted, outcome="failed")
    story.request("req-2", end=None)
    twice = story.request("req-2")
    findings = completeness(iter(story.entries), scope_of(story.entries), NO_COUNTERS).findings
    assert findings == (
        f"entry {again}: request:failed ends req-1, which is not open",
        f"entry {twice}: req-2 was admitted a second time",
    )


def test_tokens_that_the_engine_counted_otherwise_are_named():
    """Run by run, as the reconciliation judges it; a run without counters is not guessed at."""
    story = Story()
    story.start()
    counted = {"prompt_tokens": 10, "cached_tokens": 0, "output_tokens": 5}
    none = dict.fromkeys(counted, 0)
    story.request("req-1", engine=counted)
    story.tell("appliance:stopped", engine={**counted, "output_tokens": 7, "late": none})
    story.restart()
    story.start()
    scope = scope_of(story.entries)
    engine = reconcile(entry.leaf for entry in story.entries)
    report = completeness(iter(story.entries), scope, engine)
    assert [(run.epoch, run.verdict) for run in report.engine] == [(1, "unbalanced"), (2, "uncounted")]
    assert report.engine[0].counted["output_tokens"] == 7
    (finding,) = report.findings
    assert finding.startswith("run 1: the log accounts for 5 output_tokens, the engine counted 7")


def test_completeness_is_read_once_and_no_further_than_it_must():
    """A window with nothing open after it ends the reading there."""
    story = told()
    first_run = [entry for entry in story.entries if entry.leaf.place.epoch == 1]
    scope = scope_of(story.entries, last_index=first_run[-1].index)
    source = iter(story.entries)
    completeness(source, scope, NO_COUNTERS)
    assert next(source).index == first_run[-1].index + 2


# R2


def test_changes_are_everything_but_use_and_reads():
    """Who, what, when; the models and policies in their order."""
    entries = told().entries
    read = meant(changes_filter(scope_of(entries)), entries)
    report = change_history(iter(read), scope_of(entries))
    kinds = [change.kind for change in report.changes]
    started = ["appliance:started", "policy:loaded", "model:loaded"]
    assert kinds == [*started, "appliance:stopped", *started, *started, "appliance:stopped"]
    assert (report.models, report.policies, report.num_changes) == ((MODEL,), (POLICY,), 11)
    assert report.changes[0].facts == {"version": "0.1.0"}
    assert report.findings == ()


def test_a_kind_that_nobody_knows_counts_as_a_change():
    """A new kind is shown rather than missed."""
    story = told()
    story.tell("firewall:opened", "port", actor="omar", role="operator")
    read = meant(changes_filter(scope_of(story.entries)), story.entries)
    assert change_history(iter(read), scope_of(story.entries)).changes[-1].kind == "firewall:opened"


def test_a_model_loaded_with_other_facts_is_named():
    """Same root, another dtype: the records say so."""
    story = told()
    index = story.tell("model:loaded", MODEL, dtype="int8")
    report = change_history(iter(story.entries), scope_of(story.entries))
    assert report.findings == (f"entry {index}: {MODEL} was loaded with other facts than before",)


# R3


def test_the_six_facts_are_never_missing_in_a_sound_log():
    """And every kind has its row."""
    entries = told().entries
    report = event_catalogue(iter(entries), scope_of(entries))
    assert report.findings == ()
    assert report.num_entries == len(entries) == sum(row.count for row in report.kinds)
    rows = {row.kind: row for row in report.kinds}
    assert rows["request:denied"].outcome == "stated"
    assert rows["policy:loaded"].outcome == "implied"
    assert "total_ms" in rows["request:completed"].facts
    assert "key:revoked" in report.never_seen


@pytest.mark.parametrize(
    ("fault", "field", "what"),
    [
        ({"facts": {}}, "without_source", "source"),
        ({"ts_us": 0}, "without_when", "when"),
    ],
)
def test_a_missing_fact_is_named(fault, field, what):
    """By entry."""
    story = told()
    index = story.tell("log:read", "req-9", actor="avery", role="auditor", outcome="completed")
    entry = story.entries[index]
    broken = dataclasses.replace(entry.leaf, event=dataclasses.replace(entry.leaf.event, **fault))
    story.entries[index] = dataclasses.replace(entry, leaf=broken)
    report = event_catalogue(iter(story.entries), scope_of(story.entries))
    assert getattr(report, field) == 1
    assert report.findings == (f"entry {index}: log:read without its {what}",)


def test_a_missing_node_is_named():
    """Where it happened is a fact of the place."""
    story = told()
    entry = story.entries[3]
    nowhere = dataclasses.replace(entry.leaf, place=dataclasses.replace(entry.leaf.place, node_id=""))
    story.entries[3] = dataclasses.replace(entry, leaf=nowhere)
    assert event_catalogue(iter(story.entries), scope_of(story.entries)).without_where == 1


# R4


def test_holds_live_until_they_are_released():
    """And proposals until somebody acts on them."""
    story = told()
    story.tell("retention:set", floor_days=183)
    held = story.tell("hold:placed", "hold", actor="pia", role="privacy", held_tenant="plant", reason="case 7")
    released = story.tell("hold:placed", "hold", actor="pia", role="privacy", held_from=3, held_to=9, reason="case 8")
    proposal = story.tell("hold_release:proposed", "act", actor="pia", role="privacy", terms={"hold_index": released})
    story.tell("hold:released", "act", actor="avery", hold_index=released, proposal_index=proposal)
    open_ = story.tell("prune:proposed", "act", actor="omar", role="operator", terms={"minimum_index": 5})
    report = retention_and_holds(iter(story.entries), scope_of(story.entries), story.entries[0])
    assert [one.index for one in report.living_holds] == [held]
    assert (report.released_holds, [one.index for one in report.open_proposals]) == (1, [open_])
    assert report.floor == {"floor_days": 183}
    assert (report.oldest_index, report.findings) == (0, ())


@pytest.mark.parametrize(
    ("held", "erased", "is_named"),
    [
        ({"held_tenant": "plant", "held_subject": "Dora"}, ("dora", "plant"), True),
        ({"held_tenant": "plant"}, ("dora", "plant"), True),
        ({"held_tenant": "plant", "held_subject": "dora"}, ("egon", "plant"), False),
        ({"held_tenant": "lab"}, ("dora", "plant"), False),
        ({"held_from": 0, "held_to": 9}, ("dora", "plant"), False),
    ],
)
def test_an_erasure_under_a_hold_whose_row_was_hidden_is_named(held, erased, is_named):
    """The database's master can hide the hold while the erasure is decided, never from whoever reads both later."""
    story = told()
    placed = story.tell("hold:placed", "hold", actor="pia", role="privacy", reason="case 7", **held)
    subject, tenant = erased
    bad = story.tell("subject:erasing", subject, actor="pia", role="privacy", subject_tenant=tenant)
    report = retention_and_holds(iter(story.entries), scope_of(story.entries), story.entries[0])
    finding = f"entry {bad}: an erasure of {subject} while hold {placed} (case 7) was alive"
    assert report.findings == ((finding,) if is_named else ())


@pytest.mark.parametrize("exception", [None, "older", "right"])
def test_a_floor_lowered_without_two_people_is_named(exception):
    """Whoever stated it: the report does not take the start's word for it."""
    story = told()
    older = story.tell("retention:lowered", "act", actor="pia", role="privacy", proposer="omar")
    story.tell("retention:set", "retention", leaf_days=2192, content_days=0)
    right = story.tell("retention:lowered", "act", actor="pia", role="privacy", proposer="omar")
    index = {"older": older, "right": right, None: None}[exception]
    said = {} if index is None else {"exception_index": index}
    lower = story.tell("retention:set", "retention", leaf_days=183, content_days=0, **said)
    report = retention_and_holds(iter(story.entries), scope_of(story.entries), story.entries[0])
    finding = f"entry {lower}: states a lower floor than before, and two people had not approved it"
    assert report.findings == (() if exception == "right" else (finding,))


def test_an_act_of_two_by_one_is_named():
    """Under another spelling of the name as well."""
    story = told()
    bad = story.tell("log:pruned", "act", actor="Pia", role="privacy", proposer="pia", minimum_index=3)
    report = retention_and_holds(iter(story.entries), scope_of(story.entries), story.entries[0])
    assert report.findings == (f"entry {bad}: log:pruned was proposed and approved by Pia alone",)


def test_what_was_pruned_under_a_hold_is_named():
    """A tenant's hold reaches everything, a range what it says."""
    story = told()
    held = story.tell("hold:placed", "hold", actor="pia", role="privacy", held_from=3, held_to=9, reason="case 8")
    fine = story.tell("log:pruned", "act", actor="pia", role="privacy", minimum_index=3)
    bad = story.tell("log:pruned", "act", actor="pia", role="privacy", minimum_index=4)
    lost = story.tell("hold:released", "act", actor="avery", hold_index=fine)
    report = retention_and_holds(iter(story.entries), scope_of(story.entries), story.entries[0])
    assert report.findings == (
        f"entry {bad}: pruned below 4 while hold {held} (case 8) was alive",
        f"entry {lost}: releases a hold that is not alive",
    )


# R5


def test_continuity_of_a_sound_log():
    """Three runs on three boots: in order, without a word, in order; and the time between them."""
    entries = told().entries
    report = logging_continuity(iter(entries), scope_of(entries))
    assert [run.ended for run in report.runs] == ["in order", "without a word", "in order"]
    assert [run.epoch for run in report.runs] == [1, 2, 3]
    assert (report.num_boots, report.downtime_s, report.findings) == (3, 902, ())


@pytest.mark.parametrize(
    ("break_", "what"),
    [
        (lambda story: story.restart() or story.restart(), "run 5 follows run 3"),
        (lambda story: story.restart(), "run 4 begins without appliance:started"),
        (lambda _story: None, "after the end of run 3"),
    ],
)
def test_a_break_of_continuity_is_named(break_, what):
    """A run that is skipped, one without a beginning, and entries after an end."""
    story = told()
    break_(story)
    index = story.tell("log:read", actor="avery", role="auditor")
    findings = logging_continuity(iter(story.entries), scope_of(story.entries)).findings
    assert f"entry {index}: {what}" in findings
