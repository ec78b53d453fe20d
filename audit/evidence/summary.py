"""summary.pdf: what an auditor shows to people who read no JSON.  A4, the standard fonts, text that can be searched.

Promise: the same facts give the same bytes; every number on it is counted from the entries in range.  Text from the
log is escaped to what the standard fonts can show, and cut where it would not fit, with dots.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor, white
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from audit.checkpoint import Checkpoint
from audit.evidence.charts import COLOURS, FAINT, INK, MAX_BARS, Bars, ranked_bars, stacked_bars
from audit.evidence.index import SampleRule, Selection
from audit.evidence.table import utc_text
from audit.evidence.tally import Tally
from audit.leaf import MAX_SAFE_INTEGER

MAX_POLICIES_SHOWN = 12
MAX_KINDS_SHOWN = 120
"""More than there are; a crafted log may have any number."""
_UNITS = {"day": 10, "month": 7, "year": 4}
"""Unit -> characters of a date that name it."""
_MAX_ORIGIN = 60
_MARGIN = 20 * mm
_PADDING = 6
"""That the library's frame keeps inside the margins."""
_WIDTH = A4[0] - 2 * _MARGIN - 2 * _PADDING
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.5, leading=13, textColor=INK)
_CELL = ParagraphStyle("cell", parent=_BODY, fontSize=8.5, leading=11)
_MONO = ParagraphStyle("mono", parent=_CELL, fontName="Courier", fontSize=8, splitLongWords=True)
_TITLE = ParagraphStyle("title", parent=_BODY, fontName="Helvetica-Bold", fontSize=20, leading=24, spaceAfter=2)
_HEAD = ParagraphStyle(
    "head",
    parent=_BODY,
    fontName="Helvetica-Bold",
    fontSize=12,
    leading=15,
    spaceBefore=14,
    spaceAfter=5,
    keepWithNext=1,
)
_POINT = ParagraphStyle("point", parent=_BODY, leftIndent=10, bulletIndent=0, spaceAfter=3)
_NUMBER = ParagraphStyle("number", parent=_CELL, alignment=TA_RIGHT)
_VERDICT = ParagraphStyle("verdict", parent=_BODY, textColor=white, fontSize=10.5, leading=14)
_GOOD, _WARN = HexColor("#1f5f3a"), HexColor("#8c1c13")


_LIMITS = (
    """It proves that the entries are what the appliance recorded, whole and in this order, up to the head: nothing was
    changed, added or left out.  Each request has one beginning and at most one end.""",
    """It shows a cut end, or a log written anew by whoever holds the signing key, only against a checkpoint that you
    kept.  Keep index.proof of this pack for the next one.""",
    """It does not prove that what was recorded is true: times are the appliance's clock, and who stands behind an API
    key is known to whoever gave out the key.""",
    """It holds no prompt and no answer.  Commitments in it can be checked only with the subject's key, as long as that
    key exists.""",
)
_SAMPLE = """The sample is every act of governance in range, and the {size:,} entries in range whose SHA-256 of seed and
    index is least.  Choose a seed of your own to rule out that it was chosen for you."""


@dataclass(frozen=True, slots=True)
class SummaryFacts:
    """What the summary says beside what it counts."""

    maker: str
    trust: str
    head: Checkpoint
    selection: Selection
    rule: SampleRule
    num_proofs: int
    num_running: int
    """Requests that had not ended at the head."""


def write_summary(path: Path, facts: SummaryFacts, tally: Tally) -> None:
    """Write the page."""
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=18 * mm,
        bottomMargin=18 * mm,
        title=f"Evidence summary of {_shown(facts.head.origin)}",
        author="Cloister",
        subject=f"{facts.head.size} entries, root {facts.head.root.hex()}",
        invariant=1,
    )
    footer = _Footer(facts)
    document.build(list(_story(facts, tally)), onFirstPage=footer, onLaterPages=footer)


class _Footer:
    """One line under each page: which head, which page."""

    def __init__(self, facts: SummaryFacts) -> None:
        origin = _plain(facts.head.origin)
        origin = origin if len(origin) <= _MAX_ORIGIN else f"{origin[: _MAX_ORIGIN - 3]}..."
        self._text = f"{origin}   head {facts.head.size}   root {facts.head.root.hex()[:24]}..."

    def __call__(self, canvas: Canvas, document: SimpleDocTemplate) -> None:
        """Draw it."""
        canvas.setFont("Helvetica", 7)
        canvas.setFillColor(INK)
        canvas.drawString(_MARGIN + _PADDING, 10 * mm, self._text)
        canvas.drawRightString(A4[0] - _MARGIN - _PADDING, 10 * mm, f"page {document.page}")


def _story(facts: SummaryFacts, tally: Tally) -> Iterator[Flowable]:
    yield Paragraph("Evidence summary", _TITLE)
    yield Paragraph(f"of the log <b>{_shown(facts.head.origin)}</b>", _BODY)
    yield Spacer(1, 8)
    yield _verdict(facts)
    yield Paragraph("What this pack covers", _HEAD)
    yield _facts_table(facts, tally)
    yield from _requests_chart(tally)
    yield Paragraph("Denials by policy", _HEAD)
    yield from _denials_chart(tally)
    yield from _tokens_chart(tally)
    yield Paragraph("Entries by kind", _HEAD)
    yield _kinds_table(tally)
    yield KeepTogether([Paragraph("What this proves, and what it does not", _HEAD), *_limits(facts)])


def _verdict(facts: SummaryFacts) -> Flowable:
    text = (
        f"<b>VERIFIED when made</b>: {facts.head.size:,} entries, every tile, the signed head and the life of every "
        "request. This is the maker's own word: check it with verify.py and the key that you have from another hand."
    )
    rows = [[Paragraph(text, _VERDICT)]]
    style = [("BACKGROUND", (0, 0), (-1, 0), _GOOD)]
    if facts.trust != "production":
        name = _shown(facts.trust).upper()
        warning = f"<b>{name} TRUST</b>: by keys that this machine made for itself; this pack is a rehearsal."
        rows.append([Paragraph(warning, _VERDICT)])
        style.append(("BACKGROUND", (0, 1), (-1, 1), _WARN))
    return _table(rows, [_WIDTH], [*style, ("LEFTPADDING", (0, 0), (-1, -1), 9), ("RIGHTPADDING", (0, 0), (-1, -1), 9)])


def _facts_table(facts: SummaryFacts, tally: Tally) -> Flowable:
    bounds = facts.selection
    none = "no entry"
    first = none if tally.first_us is None else utc_text(tally.first_us)
    last = none if tally.last_us is None else utc_text(tally.last_us)
    asked_us = _bounds(bounds.from_us, bounds.until_us, utc_text)
    rows = [
        ("Entries in range", f"{tally.num_entries:,} of {facts.head.size:,} in the log"),
        ("Asked for, by index", _bounds(bounds.from_index, bounds.until_index, str)),
        ("Asked for, by time", asked_us),
        ("First entry in range", first),
        ("Last entry in range", last),
        ("Head of the log", f"{facts.head.size:,} entries"),
        ("Root of the tree", facts.head.root.hex()),
        ("Requests still running", f"{facts.num_running:,} at the head"),
        (
            "Proven singly",
            f"{facts.num_proofs:,} entries: every act of governance in range, and {facts.rule.size:,} drawn",
        ),
        ("Seed of the sample", facts.rule.seed),
        ("Made for", facts.maker),
    ]
    cells = [[Paragraph(name, _CELL), Paragraph(_shown(value), _MONO)] for name, value in rows]
    return _table(cells, [42 * mm, _WIDTH - 42 * mm], _ruled(len(cells)))


def _requests_chart(tally: Tally) -> Iterator[Flowable]:
    if not tally.outcomes:
        yield Paragraph("Requests by day and outcome", _HEAD)
        yield Paragraph("No request ended in this range.", _BODY)
        return
    names = sorted({name for _, name in tally.outcomes}, key=_outcome_order)
    buckets, unit, name_of_unit = _buckets(sorted({day for day, _ in tally.outcomes}))
    yield Paragraph(f"Requests by {name_of_unit} and outcome", _HEAD)
    sums: Counter[tuple[str, str]] = Counter()
    for (day, name), number in tally.outcomes.items():
        sums[unit(day), name] += number
    series = {name: [sums[label, name] for label in buckets] for name in names}
    yield stacked_bars(Bars(buckets, series), _WIDTH, 150)
    totals = ", ".join(f"{name} {sum(series[name]):,}" for name in names)
    yield Paragraph(f"In all: {_shown(totals)}.", _CELL)


def _denials_chart(tally: Tally) -> Iterator[Flowable]:
    if not tally.denials:
        yield Paragraph("No request was denied in this range.", _BODY)
        return
    ranked = sorted(tally.denials.items(), key=lambda item: (-item[1], item[0]))
    yield ranked_bars([(_plain(name), number) for name, number in ranked[:MAX_POLICIES_SHOWN]], _WIDTH)
    hidden = len(ranked) - MAX_POLICIES_SHOWN
    more = f"And {hidden:,} more, in records.csv. " if hidden > 0 else ""
    yield Paragraph(f"{more}A denial by several policies counts for each of them.", _CELL)


def _tokens_chart(tally: Tally) -> Iterator[Flowable]:
    days = sorted({*tally.prompt_tokens, *tally.completion_tokens})
    if not days:
        yield Paragraph("Tokens by day", _HEAD)
        yield Paragraph("No tokens were counted in this range.", _BODY)
        return
    buckets, unit, name_of_unit = _buckets(days)
    yield Paragraph(f"Tokens by {name_of_unit}", _HEAD)
    series: dict[str, list[int]] = {}
    for name, counter in (("prompt tokens", tally.prompt_tokens), ("completion tokens", tally.completion_tokens)):
        sums: Counter[str] = Counter()
        for day, number in counter.items():
            sums[unit(day)] += number
        series[name] = [sums[label] for label in buckets]
    yield stacked_bars(Bars(buckets, series), _WIDTH, 130)
    totals = ", ".join(f"{name} {sum(values):,}" for name, values in series.items())
    yield Paragraph(f"In all: {totals}.", _CELL)


def _kinds_table(tally: Tally) -> Flowable:
    if not tally.kinds:
        return Paragraph("No entry is in range.", _BODY)
    ranked = sorted(tally.kinds.items())[:MAX_KINDS_SHOWN]
    half = -(-len(ranked) // 2)
    left, right = ranked[:half], [*ranked[half:], *[("", 0)] * (2 * half - len(ranked))]
    rows = [
        [_cell(a), Paragraph(f"{n:,}", _NUMBER), "", _cell(b), Paragraph(f"{m:,}" if b else "", _NUMBER)]
        for (a, n), (b, m) in zip(left, right, strict=True)
    ]
    name, number = (_WIDTH - 10 * mm) * 0.36, (_WIDTH - 10 * mm) * 0.14
    return _table(rows, [name, number, 10 * mm, name, number], _ruled(len(rows)))


def _limits(facts: SummaryFacts) -> Iterator[Flowable]:
    for line in (*_LIMITS, _SAMPLE.format(size=facts.rule.size)):
        yield Paragraph(line, _POINT, bulletText="\u2022")


def _buckets(days: Sequence[int]) -> tuple[list[str], Callable[[int], str], str]:
    """Return labels without gaps from the first day to the last, what turns a day into its label, and the unit.

    Days, months where there are more days than fit, years where there are more months.
    """
    for name, length in _UNITS.items():

        def unit(day: int, length: int = length) -> str:
            return (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()[:length]

        labels = list(dict.fromkeys(unit(day) for day in range(days[0], days[-1] + 1)))
        if len(labels) <= MAX_BARS:
            return labels, unit, name
    return labels, unit, "year"


def _outcome_order(name: str) -> tuple[int, str]:
    order = list(COLOURS)
    return (order.index(name) if name in order else len(order), name)


def _bounds(start: int, end: int, text: Callable[[int], str]) -> str:
    begin = "the beginning" if start == 0 else f"from {text(start)}"
    finish = "the head" if end >= MAX_SAFE_INTEGER else f"before {text(end)}"
    return "everything" if (start, end >= MAX_SAFE_INTEGER) == (0, True) else f"{begin} to {finish}"


def _table(rows: list[list[Any]], widths: list[float], style: list[Any]) -> Table:
    table = Table(rows, colWidths=widths, hAlign="LEFT")
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("TOPPADDING", (0, 0), (-1, -1), 3), *style]))
    return table


def _ruled(num_rows: int) -> list[Any]:
    rules = [("LINEBELOW", (0, row), (-1, row), 0.4, FAINT) for row in range(num_rows)]
    return [*rules, ("LEFTPADDING", (0, 0), (0, -1), 0)]


def _cell(text: str) -> Paragraph:
    return Paragraph(_shown(text), _CELL)


def _shown(text: str) -> str:
    """Give text of the log to a paragraph: no markup, and nothing that the standard fonts cannot show."""
    return escape(_plain(text))


def _plain(text: str) -> str:
    return "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in text)
