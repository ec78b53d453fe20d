"""Charts of the summary, drawn with plain shapes: every bar, tick and label is placed here.

Pure: numbers in, drawings out.  Colours differ in lightness too, so that a print in black tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reportlab.graphics.shapes import Drawing, Line, Rect, String
from reportlab.lib.colors import Color, HexColor

INK, FAINT = HexColor("#1b2430"), HexColor("#d5dae1")
COLOURS: Mapping[str, Color] = {
    "completed": HexColor("#2f6f9f"),
    "failed": HexColor("#8c1c13"),
    "cancelled": HexColor("#9aa5b1"),
    "abandoned": HexColor("#4b2e83"),
    "denied": HexColor("#d9822b"),
    "refused": HexColor("#f0c987"),
    "prompt tokens": HexColor("#2f6f9f"),
    "completion tokens": HexColor("#d9822b"),
}
_OTHER = HexColor("#5b6770")
FONT, SMALL = "Helvetica", 7
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 24, 26
MAX_BARS = 62
_MAX_LABEL = 44


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars: one stack per label, one part per series."""

    labels: Sequence[str]
    series: Mapping[str, Sequence[int]]


def stacked_bars(bars: Bars, width: float, height: float) -> Drawing:
    """Draw one stack per label, with a scale at the left and a legend on top."""
    drawing = Drawing(width, height)
    totals = [sum(parts) for parts in zip(*bars.series.values(), strict=True)]
    top, step = _scale(max(totals, default=0))
    left = max(_LEFT, 8 + 4 * len(f"{top:,}"))
    plot_width, plot_height = width - left - _RIGHT, height - _TOP - _BOTTOM
    for tick in range(0, top + 1, step):
        y = _BOTTOM + plot_height * tick / top
        drawing.add(Line(left, y, width - _RIGHT, y, strokeColor=FAINT, strokeWidth=0.5))
        drawing.add(_text(left - 4, y - 2.5, f"{tick:,}", anchor="end"))
    pitch = plot_width / max(len(bars.labels), 1)
    bar_width = min(pitch * 0.72, 34)
    every = -(-len(bars.labels) // 10)
    for position, label in enumerate(bars.labels):
        middle = left + pitch * (position + 0.5)
        y = float(_BOTTOM)
        for name, values in bars.series.items():
            part = plot_height * values[position] / top
            if part:
                drawing.add(Rect(middle - bar_width / 2, y, bar_width, part, fillColor=_colour(name), strokeColor=None))
            y += part
        if position % every == 0:
            drawing.add(_text(middle, _BOTTOM - 10, label, anchor="middle"))
    drawing.add(Line(left, _BOTTOM, width - _RIGHT, _BOTTOM, strokeColor=INK, strokeWidth=0.7))
    _add_legend(drawing, bars.series, height - 10)
    return drawing


def ranked_bars(rows: Sequence[tuple[str, int]], width: float) -> Drawing:
    """Draw one bar per row, with its label at the left and its number behind it."""
    row_height, label_width = 15, 210
    drawing = Drawing(width, row_height * max(len(rows), 1))
    largest = max((number for _, number in rows), default=0)
    for position, (label, number) in enumerate(rows):
        y = row_height * (len(rows) - 1 - position)
        length = (width - label_width - 60) * number / largest if largest else 0
        shown = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 3]}..."
        drawing.add(_text(label_width - 6, y + 4.5, shown, anchor="end", size=8))
        drawing.add(Rect(label_width, y + 2, length, row_height - 5, fillColor=COLOURS["denied"], strokeColor=None))
        drawing.add(_text(label_width + length + 5, y + 4.5, f"{number:,}", size=8))
    return drawing


def _scale(largest: int) -> tuple[int, int]:
    """A round top not below the largest value, and a step that gives four or five lines."""
    step = 1
    while step * 5 < largest:
        text = str(step)
        step = int(text.replace("1", "2", 1)) if text[0] == "1" else step * 5 // 2 if text[0] == "2" else step * 2
    return max(step, -(-largest // step) * step), step


def _add_legend(drawing: Drawing, series: Mapping[str, Sequence[int]], y: float) -> None:
    x = float(_LEFT)
    for name in series:
        drawing.add(Rect(x, y, 7, 7, fillColor=_colour(name), strokeColor=None))
        drawing.add(_text(x + 10, y + 1, name))
        x += 22 + 3.9 * len(name)


def _colour(name: str) -> Color:
    return COLOURS.get(name, _OTHER)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: float = SMALL) -> String:
    return String(x, y, text, fontName=FONT, fontSize=size, fillColor=INK, textAnchor=anchor)
