"""The control map is exactly of its form, names only what exists, and covers what it says it covers."""

from __future__ import annotations

import copy
import json
import re
from importlib.resources import files

import pytest
import typer.main
from typer.testing import CliRunner

from appliance.cli.audit import app
from appliance.controls.control_map import PROOFS, ControlMapRefused, parse_control_map, read_control_map
from appliance.reports.registry import REPORTS

RAW = json.loads(files("appliance.controls").joinpath("control_map.json").read_bytes())
FRAMEWORKS = (
    "EU AI Act",
    "ISO/IEC 42001",
    "NIST SP 800-53",
    "SOC 2",
    "HIPAA",
    "PCI DSS",
    "SEC Rule 17a-4",
    "GDPR",
    "DORA",
    "NIS2",
    "21 CFR 11",
)


def test_the_map_is_of_its_form_and_complete():
    """Every framework of the promise has rows, and every report answers something."""
    found = read_control_map()
    assert all(any(row.framework.startswith(name) for row in found.controls) for name in FRAMEWORKS)
    assert {report for row in found.controls for report in row.reports} == set(REPORTS)
    assert {row.source for row in found.controls} == set(found.sources) == {"V", "S", "R"}
    assert all(re.fullmatch(r"[a-z0-9-]+", row.id) for row in found.controls)


def test_a_row_that_was_not_read_in_its_source_says_so_where_it_matters():
    """Drafts are called drafts, and no row claims that a control is met."""
    found = read_control_map()
    drafts = [row for row in found.controls if row.framework.startswith("prEN")]
    assert all("draft" in row.limits for row in drafts)
    assert drafts
    claims = re.compile(r"\b(compliant|complies|fully|guarantee)", re.IGNORECASE)
    assert not any(claims.search(f"{row.asks} {row.limits}") for row in found.controls)


def test_every_proof_is_a_verb_of_the_command():
    """What the map sends an auditor to can be typed."""
    root = typer.main.get_command(app)
    for proof in PROOFS:
        command = root
        for word in proof.split():
            command = command.commands[word]


def _row(name, value):
    return lambda raw: raw["controls"][0].__setitem__(name, value)


FAULTS = {
    "a member more": lambda raw: raw.update(extra=1),
    "a member less": lambda raw: raw.pop("reading"),
    "a row's member more": _row("extra", 1),
    "a row's member less": lambda raw: raw["controls"][0].pop("limits"),
    "an empty limit": _row("limits", " "),
    "a report that does not exist": _row("reports", ["R14"]),
    "no report": _row("reports", []),
    "a report twice": _row("reports", ["R1", "R1"]),
    "a kind that does not exist": _row("kinds", ["no:such"]),
    "a proof that does not exist": _row("proof", ["trust"]),
    "a source mark that does not exist": _row("source", "X"),
    "a number for a text": _row("asks", 7),
    "an id twice": lambda raw: raw["controls"].append(raw["controls"][0]),
    "no list": lambda raw: raw.update(controls={}),
    "a version that is no number": lambda raw: raw.update(version="1"),
    "a source without a meaning": lambda raw: raw["sources"].update(V=""),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_map_that_is_not_of_its_form_is_refused(fault):
    """By row and member."""
    raw = copy.deepcopy(RAW)
    fault(raw)
    with pytest.raises(ControlMapRefused):
        parse_control_map(raw)


@pytest.mark.parametrize("value", [None, [], "x", {"controls": [7]}, {**RAW, "controls": [7]}])
def test_what_is_no_map_is_refused(value):
    """Never a traceback of another kind."""
    with pytest.raises(ControlMapRefused):
        parse_control_map(value)


def test_the_command_shows_the_list_and_one_row():
    """And an id that does not exist is wrong usage."""
    run = CliRunner().invoke
    listed = run(app, ["controls"])
    assert listed.exit_code == 0
    assert all(row["id"] in listed.output for row in RAW["controls"])
    one = run(app, ["controls", "nist-au-8"])
    assert "answered by R7 Clock" in one.output
    assert "limits: Microseconds" in one.output
    assert json.loads(run(app, ["controls", "nist-au-8", "--json"]).output)["reports"] == ["R7"]
    assert json.loads(run(app, ["controls", "--json"]).output)["version"] == RAW["version"]
    assert run(app, ["controls", "nist-au-99"]).exit_code == 2


def test_a_failing_log_and_clock_are_said_by_the_kinds_that_record_them():
    """The rows that ask for it name them, so that a search for the row finds them."""
    kinds = {row["id"]: set(row["kinds"]) for row in RAW["controls"]}
    assert {"log:filling", "log:halted"} <= kinds["nist-au-4-5"]
    assert "clock:changed" in kinds["nist-au-8"]
