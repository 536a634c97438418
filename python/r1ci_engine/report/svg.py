"""Charts as SVG text, drawn by hand: no plotting library, no script, colours from CSS variables.

A line chart shows raw values faintly and their moving average on top, over bands for the stages.
Moving the pointer over it shows the values of that step, by CSS alone. Values that are None
(absent or not finite) leave a gap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

POINTS_DRAWN = 400
"""Longer series are averaged in buckets down to this many points."""
HOVERS_DRAWN = 120
TINIEST = 1e-100
"""Differences below this count as none, so that no division overflows."""


@dataclass(frozen=True)
class Series:
    """One line: a value or None per step."""

    name: str
    values: Sequence[float | None]
    colour: str
    """A CSS colour, such as `var(--rl)`."""


@dataclass(frozen=True)
class Band:
    """A stage: its steps (inclusive) and the number that picks its colour."""

    label: str
    first: int
    last: int
    colour: str


@dataclass(frozen=True)
class Frame:
    """Outer size and margins of a chart in user units."""

    width: float = 520
    height: float = 210
    left: float = 44
    right: float = 12
    top: float = 22
    bottom: float = 24

    @property
    def plot_right(self) -> float:
        """Right edge of the plot."""
        return self.width - self.right

    @property
    def plot_bottom(self) -> float:
        """Lower edge of the plot."""
        return self.height - self.bottom


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values from at most `low` to at least `high`."""
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, TINIEST):
        pad = abs(low) * 0.1 if size > TINIEST else 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def figure(value: float) -> str:
    """A number short enough for an axis."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def moving_average(values: Sequence[float | None], window: int) -> list[float | None]:
    """Centred mean over `window` values, Nones skipped; None where the value itself is None."""
    half = window // 2
    smooth: list[float | None] = []
    for index, value in enumerate(values):
        near = [v for v in values[max(0, index - half) : index + half + 1] if v is not None]
        smooth.append(None if value is None else sum(near) / len(near))
    return smooth


def line_chart(
    steps: Sequence[int],
    series: Sequence[Series],
    *,
    bands: Sequence[Band] = (),
    zero: bool = True,
    frame: Frame | None = None,
    label: str = "",
) -> str:
    """An `<svg>` element of `series` over `steps`; `zero` makes the value axis reach 0.

    Series without a single value are left out; "" if none is left.
    """
    drawn = [line for line in series if any(v is not None for v in line.values)]
    if not drawn:
        return ""
    frame = frame or Frame()
    steps, drawn = _bucket(steps, drawn)
    known = [v for line in drawn for v in line.values if v is not None]
    marks = ticks(min(0.0, *known) if zero else min(known), max(known))
    first, last = min(steps), max(*steps, steps[0] + 1)
    if bands:
        first, last = min(first, bands[0].first), max(last, bands[-1].last)

    def x(step: float) -> float:
        return frame.left + (step - first) / (last - first) * (frame.plot_right - frame.left)

    def y(value: float) -> float:
        share = (value - marks[0]) / (marks[-1] - marks[0])
        return frame.plot_bottom - share * (frame.plot_bottom - frame.top)

    parts = [
        f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img"'
        f' aria-label="{escape(label)}">'
    ]
    for band in bands:
        left, right = x(max(first, band.first - 0.5)), x(min(last, band.last + 0.5))
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="{frame.top:g}" width="{right - left:.1f}"'
            f' height="{frame.plot_bottom - frame.top:g}" fill="{band.colour}"/>'
            f'<text class="band-label" x="{(left + right) / 2:.1f}" y="{frame.top - 7:g}"'
            f' style="fill:{band.colour}">{escape(band.label)}</text>'
        )
    for mark in marks:
        parts.append(
            f'<line class="grid" x1="{frame.left:g}" x2="{frame.plot_right:g}"'
            f' y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
            f'<text class="tick" x="{frame.left - 7:g}" y="{y(mark) + 3.5:.1f}"'
            f' text-anchor="end">{figure(mark)}</text>'
        )
    for mark in ticks(first, last, 6):
        if first <= mark <= last and mark == int(mark):
            parts.append(
                f'<text class="tick" x="{x(mark):.1f}" y="{frame.height - 7:g}"'
                f' text-anchor="middle">{int(mark)}</text>'
            )
    window = max(1, len(steps) // 10) | 1
    for line in drawn:
        raw = _path(steps, line.values, x, y)
        smooth = _path(steps, moving_average(line.values, window), x, y)
        parts.append(f'<path class="raw" d="{raw}" stroke="{line.colour}"/>')
        parts.append(f'<path class="smooth" d="{smooth}" stroke="{line.colour}"/>')
    parts += _hovers(steps, drawn, x, frame)
    parts.append("</svg>")
    return "".join(parts)


def _bucket(steps: Sequence[int], series: list[Series]) -> tuple[list[int], list[Series]]:
    size = -(-len(steps) // POINTS_DRAWN)
    if size == 1:
        return list(steps), series

    def mean(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known else None

    starts = range(0, len(steps), size)
    thinned = [
        Series(s.name, [mean(s.values[i : i + size]) for i in starts], s.colour) for s in series
    ]
    return [steps[min(i + size // 2, len(steps) - 1)] for i in starts], thinned


def _path(steps, values, x, y) -> str:
    commands: list[str] = []
    pen_down = False
    for step, value in zip(steps, values, strict=True):
        if value is not None:
            # A lone point between gaps still shows, as a dot of the line's width.
            commands.append(f"{'L' if pen_down else 'M'}{x(step):.1f} {y(value):.1f}")
            if not pen_down:
                commands.append("h.01")
        pen_down = value is not None
    return "".join(commands)


def _hovers(steps, series, x, frame: Frame) -> list[str]:
    stride = -(-len(steps) // HOVERS_DRAWN)
    width = (frame.plot_right - frame.left) / max(1, len(steps)) * stride
    parts: list[str] = []
    for index in range(0, len(steps), stride):
        told = " · ".join(
            f"{line.name} {figure(line.values[index])}"
            for line in series
            if line.values[index] is not None
        )
        at = x(steps[index])
        parts.append(
            f'<g class="hover"><rect x="{at - width / 2:.1f}" y="{frame.top:g}"'
            f' width="{width:.1f}" height="{frame.plot_bottom - frame.top:g}"/>'
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{frame.top:g}" y2="{frame.plot_bottom:g}"/>'
            f'<text x="{frame.plot_right - 4:g}" y="{frame.top + 13:g}" text-anchor="end">'
            f"step {steps[index]} · {escape(told)}</text></g>"
        )
    return parts


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: parts stacked from below as (count, colour, name)."""

    label: str
    parts: Sequence[tuple[int, str, str]]


def bar_chart(bars: Sequence[Bar], *, frame: Frame | None = None, label: str = "") -> str:
    """An `<svg>` element of stacked bars with their totals on top."""
    frame = frame or Frame(top=16)
    totals = [sum(count for count, _, _ in bar.parts) for bar in bars]
    marks = [mark for mark in ticks(0, max([*totals, 1])) if mark == int(mark)]
    slot = (frame.plot_right - frame.left) / len(bars)
    scale = (frame.plot_bottom - frame.top) / marks[-1]
    parts = [
        f'<svg class="chart" viewBox="0 0 {frame.width:g} {frame.height:g}" role="img"'
        f' aria-label="{escape(label)}">'
    ]
    for mark in marks:
        at = frame.plot_bottom - mark * scale
        parts.append(
            f'<line class="grid" x1="{frame.left:g}" x2="{frame.plot_right:g}" y1="{at:.1f}"'
            f' y2="{at:.1f}"/><text class="tick" x="{frame.left - 7:g}" y="{at + 3.5:.1f}"'
            f' text-anchor="end">{int(mark)}</text>'
        )
    for index, (bar, total) in enumerate(zip(bars, totals, strict=True)):
        left = frame.left + index * slot
        base = frame.plot_bottom
        for count, colour, name in bar.parts:
            if count:
                base -= count * scale
                parts.append(
                    f'<rect x="{left + slot * 0.12:.1f}" y="{base:.1f}" rx="2"'
                    f' width="{slot * 0.76:.1f}" height="{count * scale:.1f}" fill="{colour}">'
                    f"<title>{escape(f'{bar.label}: {count} {name}')}</title></rect>"
                )
        if total:
            parts.append(
                f'<text class="count" x="{left + slot / 2:.1f}" y="{base - 4:.1f}"'
                f' text-anchor="middle">{total}</text>'
            )
        parts.append(
            f'<text class="tick" x="{left + slot / 2:.1f}" y="{frame.height - 7:g}"'
            f' text-anchor="middle">{escape(bar.label)}</text>'
        )
    parts.append("</svg>")
    return "".join(parts)
