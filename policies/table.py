"""Table tests: decisions that a bundle promises, stated as data, and the runner that compares them with an engine.

A file holds single cases, a matrix, or both.  A matrix states every cell; one that is missing refuses the file.

    {"about": "...",
     "given": {"subject": {...}, "action": "infer", "target": {...}, "context": {...}},
     "cases": [{"name": "...", "with": {"context.label": 4}, "expect": "forbidden label-within-clearance"}],
     "rows": {"developer": {"subject.roles": ["developer"]}}, "columns": {"infer": {}},
     "cells": {"developer": {"infer": "allow developer-infers"}}}

`with`, a row and a column replace what stands at a dotted path of `given`.  An expectation is `allow` with the
permits that must be among the deciding ones, or a deny reason with the forbids that must; then `log_level=` and
`max_tokens_cap=` for an allow that states its obligations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from policies.decision import Allow, Deny, Facts, SubjectFacts, TargetFacts
from policies.errors import TableRefused
from policies.text_guard import guarded_text

_OBLIGATIONS: Final = ("log_level", "max_tokens_cap")


class Decider(Protocol):
    """What the runner needs of an engine."""

    def decide(self, facts: Facts) -> Allow | Deny:
        """Answer one question; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class TableCase:
    """One promised decision."""

    name: str
    facts: Facts
    expected: str
    """`allow`, or the reason of a deny."""
    policy_ids: frozenset[str]
    """All of them must be among the deciding policies."""
    obligations: Mapping[str, str]
    """Those that are stated, as text."""


@dataclass(frozen=True, slots=True)
class CaseFailure:
    """One promise that was not kept."""

    case: TableCase
    decision: Allow | Deny

    def __str__(self) -> str:
        expected = " ".join(
            [self.case.expected, *sorted(self.case.policy_ids), *map(str, self.case.obligations.items())]
        )
        return f"{self.case.name}: expected {expected}, got {self.decision}"


def run_table(engine: Decider, cases: Sequence[TableCase]) -> tuple[CaseFailure, ...]:
    """Put every case to the engine and return those that came out otherwise."""
    decided = ((case, engine.decide(case.facts)) for case in cases)
    return tuple(CaseFailure(case, decision) for case, decision in decided if not _kept(case, decision))


def read_table(file: str, content: bytes) -> tuple[TableCase, ...]:
    """Read one file.

    Raises:
        TextRefused: its bytes are unsafe to parse.
        TableRefused: it is not of the form above, or leaves a cell out.
    """
    try:
        table = json.loads(guarded_text(file, content))
        cases = (*_single_cases(file, table), *_matrix_cases(file, table))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        raise TableRefused(f"{type(failure).__name__}: {failure}", hint="see policies/table.py", file=file) from None
    if not cases:
        raise TableRefused("holds no case", hint="a table promises something or does not exist", file=file)
    return cases


def _kept(case: TableCase, decision: Allow | Deny) -> bool:
    match decision:
        case Allow(obligations=obligations):
            outcome = "allow"
            stated = {name: str(getattr(obligations, name)) for name in case.obligations}
        case Deny(reason=outcome):
            stated = {}
    return outcome == case.expected and case.policy_ids <= set(decision.policy_ids) and stated == dict(case.obligations)


def _single_cases(file: str, table: Mapping[str, Any]) -> Iterator[TableCase]:
    for case in table.get("cases", []):
        yield _case(f"{file}/{case['name']}", _replaced(table["given"], case["with"]), case["expect"])


def _matrix_cases(file: str, table: Mapping[str, Any]) -> Iterator[TableCase]:
    unknown = table.keys() - {"about", "given", "cases", "rows", "columns", "cells"}
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
    rows, columns, cells = table.get("rows", {}), table.get("columns", {}), table.get("cells", {})
    if cells.keys() != rows.keys() or any(cells[row].keys() != columns.keys() for row in rows):
        raise ValueError("cells does not state each row and column, and no other")
    for row, row_facts in rows.items():
        for column, column_facts in columns.items():
            given = _replaced(_replaced(table["given"], row_facts), column_facts)
            yield _case(f"{file}/{row}/{column}", given, cells[row][column])


def _replaced(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy with the value at each dotted path replaced; the path must exist."""
    copy: dict[str, Any] = json.loads(json.dumps(given))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = copy
        for parent in parents:
            place = place[parent]
        if last not in place:
            raise KeyError(path)
        place[last] = value
    return copy


def _case(name: str, given: Mapping[str, Any], expectation: str) -> TableCase:
    subject, target = given["subject"], given["target"]
    facts = Facts(
        subject=SubjectFacts(**{**subject, "roles": tuple(subject["roles"])}),
        action=given["action"],
        target=TargetFacts(target["kind"], target["id"], _tuples(target.get("attributes", {}))),
        context=_tuples(given["context"]),
    )
    expected, *words = expectation.split()
    obligations = dict(word.split("=") for word in words if "=" in word)
    if not obligations.keys() <= set(_OBLIGATIONS):
        raise ValueError(f"unknown obligation in {expectation!r}")
    return TableCase(name, facts, expected, frozenset(word for word in words if "=" not in word), obligations)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists, facts know tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
