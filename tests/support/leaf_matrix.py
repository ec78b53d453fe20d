"""Which leaves each kind of call leaves in the log: the one statement, run by a test and printed into docs/records.md.

A cell is what the caller hears (None: nobody is left to hear it) and the exact leaves, in order, each as its kind and
what its facts say of the outcome.  `python tests/support/leaf_matrix.py` writes the tables into the page again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PAGE = Path(__file__).resolve().parents[2] / "docs" / "records.md"
BEGIN, END = "<!-- generated: tests/support/leaf_matrix.py -->\n", "<!-- end of what is generated -->\n"


@dataclass(frozen=True, slots=True)
class Cell:
    """What one call in one mode comes to."""

    status: int | None
    leaves: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Show it in a table."""
        said = "nobody hears" if self.status is None else str(self.status)
        return f"{said}: {', '.join(f'`{leaf}`' for leaf in self.leaves) or 'no record'}"


ADMITTED = "request:admitted"
COMPLETED = (ADMITTED, "request:completed completed")


def _refused(status: int | None, code: str) -> Cell:
    return Cell(status, (f"request:refused refused {code}",))


def _failed(status: int, code: str) -> Cell:
    return Cell(status, (ADMITTED, f"request:failed failed {code}"))


def _cancelled(status: int | None, code: str) -> Cell:
    return Cell(status, (ADMITTED, f"request:cancelled cancelled {code}"))


STRANGERS = {
    "no credential": Cell(401, ("auth:refused refused missing_credential",)),
    "wrong credential": Cell(401, ("auth:refused refused invalid_api_key",)),
    "wrong method": Cell(405),
}
"""The same for every route."""
FOREIGN_TEXT = {
    "invalid JSON": (400, "invalid_json"),
    "unknown field": (400, "unknown_parameter"),
    "body too large": (413, "body_too_large"),
    "body too slow": (408, "body_timeout"),
    "gone before the body is whole": (None, "client_closed"),
}
"""What goes wrong before the body is a request; of an inference it is recorded."""

INFER: Mapping[str, tuple[Cell | None, Cell | None]] = MappingProxyType(
    {
        **{mode: (cell, cell) for mode, cell in STRANGERS.items()},
        **{mode: (_refused(*told), _refused(*told)) for mode, told in FOREIGN_TEXT.items()},
        "unknown query parameter": (_refused(400, "unknown_parameter"),) * 2,
        "denied": (Cell(403, ("request:denied denied forbidden",)),) * 2,
        "another model": (_refused(404, "model_not_found"),) * 2,
        "prompt and answer too long": (_refused(400, "context_length_exceeded"),) * 2,
        "engine stalled": (_refused(503, "engine_stalled"),) * 2,
        "stopping": (_refused(503, "stopping"),) * 2,
        "log halted": (Cell(503),) * 2,
        "log fails at the admission": (Cell(503),) * 2,
        "too many records wait at the admission": (Cell(429),) * 2,
        "subject keys unusable": (_refused(503, "subject_keys_unavailable"),) * 2,
        "answered": (Cell(200, COMPLETED),) * 2,
        "two choices": (Cell(200, COMPLETED),) * 2,
        "queue full": (_failed(429, "queue_full"),) * 2,
        "queue full for the second of two choices": (_failed(429, "queue_full"),) * 2,
        "engine stopped": (_failed(503, "engine_stopped"),) * 2,
        "engine dies before the first token": (_failed(503, "engine_died"), _failed(200, "engine_died")),
        "engine dies in the middle": (_failed(503, "engine_died"), _failed(200, "engine_died")),
        "engine dies under two choices": (_failed(503, "engine_died"), _failed(200, "engine_died")),
        "scores not finite": (_failed(500, "nan_logits"), _failed(200, "nan_logits")),
        "a fault of ours": (_failed(500, "internal_error"),) * 2,
        "gone while the admission is recorded": (_cancelled(None, "client_closed"),) * 2,
        "gone before the first token": (_cancelled(None, "client_closed"),) * 2,
        "gone in the middle": (_cancelled(None, "client_closed"),) * 2,
        "gone after the last token": (_cancelled(None, "client_closed"),) * 2,
        "gone after the end": (Cell(None, COMPLETED),) * 2,
        "reader too slow": (None, _cancelled(None, "client_stalled")),
        "stop before the first token": (
            _cancelled(503, "appliance_stopping"),
            _cancelled(200, "appliance_stopping"),
        ),
        "stop in the middle": (_cancelled(503, "appliance_stopping"), _cancelled(200, "appliance_stopping")),
        "log fails at the end": (Cell(503, (ADMITTED,)), Cell(200, (ADMITTED,))),
        "too many records wait at the end": (Cell(200, COMPLETED),) * 2,
        "record of the end is refused": (_failed(500, "record_refused"), _failed(200, "record_refused")),
        "subject keys unusable at the end": (
            _failed(503, "subject_keys_unavailable"),
            _failed(200, "subject_keys_unavailable"),
        ),
    }
)
"""Mode -> not streamed, streamed; None where the mode cannot be."""
COMPLETIONS_ONLY: Mapping[str, tuple[Cell, Cell]] = MappingProxyType(
    {
        "two prompts": (Cell(200, COMPLETED),) * 2,
        "best_of equal to n": (Cell(200, COMPLETED),) * 2,
        "best_of above n": (_refused(400, "unsupported_parameter"),) * 2,
    }
)


def _route(
    denied: str, leaves: tuple[str, ...], *, body: bool = False, stopping: Cell | None = None, **more: Cell
) -> dict[str, Cell]:
    """State every cell of a route that infers nothing.

    Args:
        denied: policy's reason towards a role that may not.
        leaves: of a call that is answered.
        body: whether it takes one.
        stopping: while the appliance is being stopped; None: as ever.
        more: cells of this route alone, words joined by underscores.
    """
    cells = {
        **STRANGERS,
        "unknown query parameter": Cell(400),
        "denied": Cell(403, (f"request:denied denied {denied}",)),
        "answered": Cell(200, leaves),
        "log fails": Cell(503) if leaves else Cell(200),
        "too many records wait": Cell(429) if leaves else Cell(200),
        "stopping": stopping or Cell(200, leaves),
    }
    if body:
        cells |= {mode: Cell(status) for mode, (status, _) in FOREIGN_TEXT.items()}
    return cells | {name.replace("_", " "): cell for name, cell in more.items()}


READ = ("log:read completed",)
STARTED = "replay:started"
OTHERS: Mapping[tuple[str, str], Mapping[str, Cell]] = MappingProxyType(
    {
        ("GET", "/v1/models"): _route("no_permit", ()),
        ("GET", "/v1/models/{id}"): _route("no_permit", (), another_model=Cell(404)),
        ("POST", "/tokenize"): _route("no_permit", (), body=True, another_model=Cell(404)),
        ("POST", "/detokenize"): _route("no_permit", (), body=True, another_model=Cell(404)),
        # An appliance that witnesses no log; tests of the witness show what one that does records.
        ("POST", "/add-checkpoint"): _route(
            "no_permit",
            (),
            answered=Cell(404),
            log_fails=Cell(404),
            too_many_records_wait=Cell(404),
            stopping=Cell(404),
        ),
        ("GET", "/audit/entries"): _route("no_permit", READ, bad_filter=Cell(400)),
        ("GET", "/audit/entries/{index}"): _route("no_permit", READ, unknown_entry=Cell(404, READ)),
        ("GET", "/audit/entries/{index}/proof"): _route("no_permit", READ, unknown_entry=Cell(404, READ)),
        ("GET", "/audit/checkpoint"): _route("no_permit", READ),
        ("POST", "/audit/evidence"): _route("no_permit", ("evidence:started",), body=True),
        ("POST", "/audit/evidence/{id}/made"): _route(
            "no_permit",
            ("evidence:made",),
            body=True,
            unknown_pack=Cell(404),
            made_before=Cell(400),
            unknown_head=Cell(400),
        ),
        ("GET", "/audit/aggregates"): _route("no_permit", READ, unknown_field_to_count_by=Cell(400)),
        ("POST", "/audit/reports/{id}"): _route(
            "no_permit", ("report:run", "report:made completed"), body=True, unknown_report=Cell(404)
        ),
        ("POST", "/audit/reviews"): _route(
            "no_permit", ("review:signed_off no_findings",), body=True, examined_no_report=Cell(400, READ)
        ),
        ("GET", "/audit/reconciliation"): _route("no_permit", READ),
        ("GET", "/audit/status"): _route("no_permit", ()),
        ("GET", "/audit/receipts/{receipt}/proof"): _route(
            "no_permit", READ, somebody_else_s=Cell(404, READ), malformed_receipt=Cell(400)
        ),
        ("POST", "/audit/replays"): _route(
            "no_permit",
            (STARTED, "replay:ended completed reproduced"),
            body=True,
            stopping=Cell(503),
            another_prompt=Cell(200, (STARTED, "replay:ended completed prompt_mismatch")),
            another_answer=Cell(200, (STARTED, "replay:ended completed not_reproduced")),
            no_request=Cell(400, (STARTED, "replay:ended refused not_a_request")),
            unknown_entry=Cell(404, (STARTED, "replay:ended refused entry_not_found")),
            label_above_clearance=Cell(
                403, (STARTED, "request:denied denied forbidden", "replay:ended refused forbidden")
            ),
            another_replay_runs=Cell(429),
            queue_full=Cell(200, (STARTED, "replay:ended completed engine_gave_up")),
            engine_dies_in_the_middle=Cell(200, (STARTED, "replay:ended completed engine_gave_up")),
            gone_in_the_middle=Cell(None, (STARTED, "replay:ended cancelled cancelled")),
            stop_in_the_middle=Cell(200, (STARTED, "replay:ended cancelled cancelled")),
            log_fails_at_the_end=Cell(503, (STARTED,)),
            sealed_and_unsealed_by_two=Cell(200, (STARTED, "content:shown", "replay:ended completed reproduced")),
            sealed_and_not_approved=Cell(
                409, (STARTED, "act:refused refused not_approved", "replay:ended refused not_approved")
            ),
        ),
        ("POST", "/audit/erasures"): _route(
            "no_permit",
            ("subject:erasing", "subject:erased completed"),
            body=True,
            erased_before=Cell(200, ("log:read",)),
            under_hold=Cell(409, ("act:refused refused under_hold",)),
            unknown_subject=Cell(404, ("act:refused refused subject_unknown",)),
        ),
        ("POST", "/audit/holds"): _route("no_permit", ("hold:placed",), body=True),
        ("GET", "/audit/holds"): _route("no_permit", READ),
        ("POST", "/audit/holds/{index}/release"): _route("no_permit", ("hold_release:proposed",), body=True),
        ("POST", "/audit/releases/{index}/approve"): _route("no_permit", ("hold:released",)),
        ("POST", "/audit/entries/{index}/check"): _route(
            "no_permit",
            ("content:checked match",),
            body=True,
            another_text=Cell(200, ("content:checked no_match",)),
            no_commitment=Cell(404, ("content:checked no_commitment",)),
            unknown_entry=Cell(404),
        ),
        ("POST", "/audit/entries/{index}/unseal"): _route(
            "no_permit",
            ("unseal:proposed",),
            body=True,
            nothing_sealed=Cell(404, ("act:refused refused content_not_found",)),
        ),
        ("POST", "/audit/unsealings/{index}/approve"): _route(
            "no_permit", ("unseal:approved",), by_the_same_person=Cell(403, ("act:refused refused same_person",))
        ),
        ("POST", "/audit/unsealings/{index}/show"): _route(
            "no_permit",
            ("content:shown",),
            shown_before=Cell(409, ("act:refused refused shown_before",)),
            to_somebody_else=Cell(403, ("act:refused refused not_the_proposer",)),
        ),
        ("GET", "/audit/retention"): _route("no_permit", READ),
        ("POST", "/audit/retention/lower"): _route("no_permit", ("retention_change:proposed",), body=True),
        ("POST", "/audit/retention/{index}/approve"): _route("no_permit", ("retention:lowered",)),
        ("POST", "/audit/prunings"): _route(
            "no_permit",
            ("prune:proposed",),
            body=True,
            unknown_export=Cell(409, ("act:refused refused export_unverified",)),
        ),
        ("POST", "/audit/prunings/{index}/approve"): _route("no_permit", ("log:pruned",)),
        ("GET", "/metrics"): _route("no_permit", ()),
        ("GET", "/keys"): _route("no_permit", ("keys:listed",)),
        ("POST", "/keys/{id}/revoke"): _route("no_permit", ("key:revoked",), unknown_key=Cell(404)),
        ("GET", "/openapi.json"): _route("no_permit", ()),
    }
)


def markdown() -> str:
    """Give the tables as docs/records.md holds them."""
    lines = ["### An inference: `POST /v1/chat/completions`, `POST /v1/completions`", ""]
    lines += ["| mode | not streamed | streamed |", "|---|---|---|"]
    for mode, (whole, streamed) in INFER.items():
        lines.append(f"| {mode} | {whole or '-'} | {'-' if streamed is None else _same(whole, streamed)} |")
    for mode, (whole, streamed) in COMPLETIONS_ONLY.items():
        lines.append(f"| {mode} (`/v1/completions`) | {whole} | {_same(whole, streamed)} |")
    lines += ["", "### Every other route", "", "| mode, on every route | |", "|---|---|"]
    lines += [f"| {mode} | {cell} |" for mode, cell in STRANGERS.items()]
    lines += ["| unknown query parameter | 400: no record |"]
    for (method, path), cells in OTHERS.items():
        own = {mode: cell for mode, cell in cells.items() if mode not in {*STRANGERS, "unknown query parameter"}}
        lines += ["", f"`{method} {path}`", "", "| mode | |", "|---|---|"]
        lines += [f"| {mode} | {cell} |" for mode, cell in own.items()]
    return "\n".join(lines) + "\n"


def _same(whole: Cell | None, streamed: Cell) -> str:
    return "the same" if whole == streamed else str(streamed)


def rewritten(page: str) -> str:
    """Give the page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
