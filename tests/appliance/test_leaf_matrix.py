"""Every route in every mode leaves exactly the leaves that `leaf_matrix` states, and breaks neither law of the log."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import leaf_matrix
import pytest
from asgi_call import AsgiCall
from leaf_matrix import COMPLETIONS_ONLY, FOREIGN_TEXT, INFER, OTHERS, STRANGERS, Cell
from matrix_bench import END_TOLD, SETTINGS, Caller, MatrixBench
from matrix_modes import HURRIED_MODES, mode_of
from matrix_setup import CALLS, INFER_PATHS

from appliance.api.routes import ROUTES
from appliance.audit_trail import SYSTEM, Kind

HURRIED = SETTINGS.model_copy(update={"body_deadline_s": 0.01, "write_deadline_s": 0.01})
ROUTE_OF = {(route.method, route.path): route for route in ROUTES}


HARMLESS = (*STRANGERS, "unknown query parameter", "denied", *FOREIGN_TEXT)
"""Modes after which a bench is as it was, so that one bench serves them all."""


def _rows() -> Iterator[tuple[tuple[str, str], dict, Mapping[str, Cell]]]:
    """Give each route with what its body has more, and its cells; an inference once whole and once streamed."""
    for path in INFER_PATHS:
        table = {**INFER, **(COMPLETIONS_ONLY if path == INFER_PATHS[1] else {})}
        for number, extra in enumerate(({}, {"stream": True})):
            cells = {mode: pair[number] for mode, pair in table.items()}
            yield ("POST", path), extra, {mode: cell for mode, cell in cells.items() if cell is not None}
    for place, cells in OTHERS.items():
        yield place, {}, cells


def _name(place: tuple[str, str], extra: dict, mode: str = "") -> str:
    return " ".join(filter(None, (*place, mode, "streamed" if extra else "")))


@asynccontextmanager
async def _benched(folder: Path, mode: str) -> AsyncIterator[MatrixBench]:
    bench = MatrixBench(folder, HURRIED if mode in HURRIED_MODES else SETTINGS)
    bench.add_key("nobody", 80, owner="nobody", tenant="plant-1", roles=())
    try:
        yield bench
    finally:
        bench.close()


@pytest.mark.parametrize(("place", "extra", "cells"), [pytest.param(*row, id=_name(row[0], row[1])) for row in _rows()])
async def test_a_call_that_gets_nowhere_leaves_exactly_what_its_cell_says(tmp_path: Path, place, extra, cells):
    """Strangers, denials, bodies that are no request: one bench, one call after another, each with its own leaves."""
    async with _benched(tmp_path, "") as bench:
        given = await CALLS[place][3](bench)
        for mode in cells:
            if mode in HARMLESS and mode not in HURRIED_MODES:
                await _run_cell(bench, place, mode, extra, given, cells[mode])


@pytest.mark.parametrize(
    ("place", "extra", "mode", "cell"),
    [
        pytest.param(place, extra, mode, cell, id=_name(place, extra, mode))
        for place, extra, cells in _rows()
        for mode, cell in cells.items()
        if mode not in HARMLESS or mode in HURRIED_MODES
    ],
)
async def test_a_call_leaves_exactly_what_its_cell_says(tmp_path: Path, place, extra, mode: str, cell: Cell):
    """Status, kinds, order, outcome, code and number; both laws on the way; the log verifies at the end."""
    async with _benched(tmp_path, mode) as bench:
        await _run_cell(bench, place, mode, extra, await CALLS[place][3](bench), cell)


async def _run_cell(bench: MatrixBench, place, mode: str, extra: dict, given: Mapping[str, Any], cell: Cell) -> None:
    role, denied_role, body, _ = CALLS[place]
    path = re.sub(r"\{(\w+)\}", lambda match: str(given[match[1]]), place[1])
    whole = None if body is None else {**body, **given.get("body", {}), **extra}
    if place[1] == "/audit/replays":
        whole = {"index": int(given["index"]), **body}
    bench.base = bench.appliance.log_size()
    call = await mode_of(place[1], mode)(bench, Caller(place[0], path, role, denied_role, whole))
    assert bench.leaves() == cell.leaves, mode
    if cell.status is not None:
        assert call.status == cell.status, (mode, call.body)
    assert bench.walk_bench.walk.num_running == 0, mode
    report = bench.walk_bench.verify()
    assert report.ok, (mode, report.findings)
    ends_open = cell.leaves[-1:] == (leaf_matrix.ADMITTED,)
    assert len(report.unfinished) == ends_open, (mode, report.unfinished)


@pytest.mark.parametrize(
    "piece", [b'{"text":"h"}', b'{"delta": {"content": "h"}}', b'"finish_reason":"stop"', b"[DONE]"]
)
async def test_an_answer_without_its_leaf_breaks_a_law(tmp_path: Path, piece: bytes):
    """The bench that holds answers against the laws does find one that breaks them."""
    async with _benched(tmp_path, "answered") as bench:
        call = AsgiCall(None, "POST", INFER_PATHS[1], {})
        call.status = 200
        with pytest.raises(AssertionError):
            bench._hold_to_the_laws(call, piece)
        trail = bench.walk_bench.trail
        await trail.append(Kind.REQUEST_ADMITTED, SYSTEM, "r1", {})
        if re.search(END_TOLD, piece):
            with pytest.raises(AssertionError):
                bench._hold_to_the_laws(call, piece)
            await trail.append(Kind.REQUEST_COMPLETED, SYSTEM, "r1", {})
        bench._hold_to_the_laws(call, piece)


def test_every_route_has_its_row_and_every_row_its_cells():
    """A new route, or a mode that every route has, must be stated before the suite is green again."""
    stated = {("POST", path) for path in INFER_PATHS} | set(OTHERS)
    assert stated == set(CALLS) == set(ROUTE_OF), "state the route in tests/support/leaf_matrix.py"
    for place, cells in OTHERS.items():
        needed = {*STRANGERS, "unknown query parameter", "denied", "answered", "log fails", "too many records wait"}
        needed |= {"stopping"} | (set(FOREIGN_TEXT) if ROUTE_OF[place].request_model is not None else set())
        assert needed <= set(cells), f"{place} lacks {sorted(needed - set(cells))}"


def test_the_page_shows_the_tables_as_they_are(repository: Path):
    """docs/records.md is generated from the same cells."""
    page = (repository / "docs/records.md").read_text()
    assert page == leaf_matrix.rewritten(page), "run: python tests/support/leaf_matrix.py"
