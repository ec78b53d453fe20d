"""The delivered tables, and that each policy is held by at least one of their cases."""

from __future__ import annotations

import itertools
import json

import pytest
from policy_questions import unproven_engine, with_site, without_tables

from policies.actions import ACTIONS, ROLES
from policies.bundle import load_bundle, read_source_bundle, read_tables
from policies.compile import parse_policies
from policies.errors import TableRefused, TextRefused
from policies.table import read_table, run_table

SOURCE = read_source_bundle()
POLICY_FILES = [name for name in SOURCE if name.endswith(".cedar")]
EACH_POLICY = [(file, policy.id) for file in POLICY_FILES for policy in parse_policies(file, SOURCE[file].decode())]


def _without(file: str, policy_id: str) -> dict[str, bytes]:
    """The bundle with one policy's text cut out."""
    before, _, rest = SOURCE[file].decode().partition(f'@id("{policy_id}")')
    return {**SOURCE, file: (before + rest.partition(";\n")[2]).encode()}


def test_every_promised_decision_is_made(engine, source_bundle):
    """The delivered policies keep every promise of the delivered tables."""
    cases = read_tables(source_bundle)
    assert len(cases) > 200
    assert run_table(engine, cases) == ()


@pytest.mark.parametrize(("file", "policy_id"), EACH_POLICY, ids=[policy_id for _, policy_id in EACH_POLICY])
def test_removing_any_policy_breaks_a_promise(file, policy_id, engine):
    """No policy is there for nothing: without it at least one stated decision changes."""
    mutant = unproven_engine(_without(file, policy_id))
    assert set(engine.policy_ids) - set(mutant.policy_ids) == {policy_id}
    assert run_table(mutant, read_tables(SOURCE)) != ()


def test_every_role_meets_every_action():
    """The matrix states a cell for no role, each role, each pair and all of them, by each action."""
    table = json.loads(SOURCE["tests/roles.json"])
    sets = {roles for size in range(len(ROLES) + 1) for roles in itertools.combinations(ROLES, size)}
    assert {tuple(sorted(row["subject.roles"])) for row in table["rows"].values()} == sets
    assert {column["action"] for column in table["columns"].values()} == set(ACTIONS)
    assert all(cells.keys() == table["columns"].keys() for cells in table["cells"].values())


def test_a_subject_without_roles_is_allowed_nothing():
    """The row of the empty grant holds no allow."""
    assert set(json.loads(SOURCE["tests/roles.json"])["cells"]["none"].values()) == {"no_permit"}


def test_a_bundle_that_contradicts_its_own_table_is_refused():
    """A policy change without the change of the promise it breaks does not load, and the message names the case."""
    site = '@id("site.no-models") forbid (principal, action == Action::"listModels", resource);'
    with pytest.raises(TableRefused, match=r"tests/roles\.json/none/listModels"):
        load_bundle(with_site(SOURCE, site))
    load_bundle(with_site(without_tables(SOURCE), site))


def _table(**changes) -> bytes:
    table = json.loads(SOURCE["tests/labels.json"])
    return json.dumps({**table, **changes}).encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "JSONDecodeError"),
        (b"[]", "AttributeError"),
        (b"{}", "holds no case"),
        (_table(cells={}), "does not state each row and column"),
        (_table(extra=1), "unknown key"),
        (_table(cases=[{"name": "x", "with": {"context.unknown": 1}, "expect": "allow"}]), "context.unknown"),
        (_table(cases=[{"name": "x", "with": {}, "expect": "allow typo=1"}]), "unknown obligation"),
        (_table(cases=[{"name": "x", "with": {}}]), "expect"),
    ],
    ids=["no JSON", "no object", "nothing", "cells left out", "unknown key", "unknown path", "bad word", "no outcome"],
)
def test_an_unreadable_table_is_refused(content, complaint):
    """A promise that cannot be read is an error, never a case less."""
    with pytest.raises(TableRefused, match=complaint):
        read_table("tests/labels.json", content)


def test_a_cell_left_out_is_refused():
    """Deleting one cell does not delete the promise in silence."""
    table = json.loads(SOURCE["tests/roles.json"])
    del table["cells"]["operator"]["infer"]
    with pytest.raises(TableRefused, match="each row and column"):
        read_table("tests/roles.json", json.dumps(table).encode())


def test_a_deeply_nested_table_is_refused_before_it_is_parsed():
    """JSON can nest too."""
    with pytest.raises(TextRefused, match="nested deeper"):
        read_table("tests/x.json", b"[" * 5000 + b"]" * 5000)


def test_an_expectation_that_is_not_met_is_reported(engine):
    """The runner fails a case for its outcome, its deciding policies and its obligations alike."""
    table = json.loads(SOURCE["tests/labels.json"])
    for expect in ("no_permit", "allow developer-reads", "allow log_level=none", "allow max_tokens_cap=1"):
        case = {"given": table["given"], "cases": [{"name": "x", "with": {}, "expect": expect}]}
        (failure,) = run_table(engine, read_table("t", json.dumps(case).encode()))
        assert "expected" in str(failure)
        assert expect.split()[0] in str(failure)
