"""Labels of a figure, placed where they hide least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.hull_points import math_subscripts
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import BboxBase

    from hullworks.analysis.compositions import FloatArray
    from hullworks.analysis.hull_points import HullPoints

INK: Final = "#1b2a3a"
QUIET: Final = "#6b7785"
STABLE: Final = "#0b559f"
"""Blue for what is stable and yellow to red for what is not: told apart with every kind of colour vision."""
LABELLED_UNSTABLE: Final = 12
"""So many unstable entries, the lowest, are labelled at most; more would cover the picture."""
RINGS: Final = (1.0, 1.9, 3.2)
"""Distances of the labels' spots, relative to the nearest; from the second on a line leads to the entry."""
AROUND: Final = tuple(
    (dx * far, dy * far, ha, va)
    for far in RINGS
    for dx, dy, ha, va in (
        (9, 0, "left", "center"),
        (-9, 0, "right", "center"),
        (0, 8, "center", "bottom"),
        (0, -8, "center", "top"),
        (7, 6, "left", "bottom"),
        (-7, 6, "right", "bottom"),
        (7, -6, "left", "top"),
        (-7, -6, "right", "top"),
    )
)
"""Where a label may stand beside its entry: offset in points and alignment; the nearer and the earlier, the better."""
AROUND_STABLE: Final = (AROUND[3], AROUND[2], *AROUND[:2], *AROUND[4:])
"""The same for what is stable: first below, where nothing lies."""
SPACING_PX: Final = 8.0
"""Distance of the points along a line that tell whether a label covers it, in pixels of the layout."""
LINE_COST: Final = 0.2
"""What each such point counts; a marker counts 1."""
STEP_COST: Final = 0.06
"""What each step down the list of spots counts."""
TOO_MUCH: Final = 4.0
"""What an unstable entry's label may hide at most, in the units of `_hidden`; rather none than one on top of others."""


@dataclass(frozen=True)
class Label:
    """The text beside an entry at a place in data coordinates."""

    x: float
    y: float
    text: str
    stable: bool


def labels_of(points: HullPoints, at: FloatArray) -> list[Label]:
    """Return the labels of all stable entries and of the lowest others, given their places, (n, 2).

    Where there are candidates, they come before references. Entries at the same place with the same label share it.
    """
    order = points.order()
    others = [i for i in order if not points.stable[i]]
    others.sort(key=lambda i: points.roles[i] is not Role.CANDIDATE)
    labels: dict[tuple[float, float, str], Label] = {}
    for i in [*order[points.stable[order]], *others]:
        stable, text = bool(points.stable[i]), math_subscripts(points.labels[i])
        key = (round(float(at[i, 0]), 3), round(float(at[i, 1]), 3), text if stable else "")
        shown = text if stable else f"{text} +{points.e_above_hull_eV[i] * 1000:.0f}"
        labels.setdefault(key, Label(float(at[i, 0]), float(at[i, 1]), shown, stable))
    stable_labels = [label for label in labels.values() if label.stable]
    return stable_labels + [label for label in labels.values() if not label.stable][:LABELLED_UNSTABLE]


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    markers: FloatArray,
    lines: Sequence[FloatArray],
    frame: BboxBase,
    taken: Sequence[BboxBase] = (),
) -> None:
    """Write each label where it hides the fewest markers, lines and labels written before.

    Args:
        axes: Where to write.
        labels: The labels, the most important first; what is unstable is left out where it would hide too much.
        markers: Places of all markers in data coordinates, shape (m, 2).
        lines: Ends of all lines in data coordinates, each of shape (2, 2).
        frame: What no label should leave, in display coordinates.
        taken: What other text fills already, in display coordinates.
    """
    drawn = [axes.transData.transform(markers), *(_along(axes.transData.transform(line)) for line in lines)]
    filled = list(taken)
    for label in labels:
        text, spots = _write(axes, label), AROUND_STABLE if label.stable else AROUND
        tried = [(_hidden(_put(text, spot), drawn, filled, frame) + STEP_COST * i, i) for i, spot in enumerate(spots)]
        cost, best = min(tried)
        if cost > TOO_MUCH and not label.stable:
            text.remove()
            continue
        filled.append(_put(text, spots[best]))
        if best >= len(spots) // len(RINGS):
            leader = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
            start = spots[best][:2]
            axes.annotate("", (label.x, label.y), start, textcoords="offset points", arrowprops=leader, zorder=11)


def _along(ends: FloatArray) -> FloatArray:
    """Return points along a line from its ends, (2, 2), all in display coordinates."""
    steps = int(np.linalg.norm(ends[1] - ends[0]) / SPACING_PX) + 2
    return np.linspace(ends[0], ends[1], steps)


def _write(axes: Axes, label: Label) -> Annotation:
    from matplotlib.patheffects import withStroke

    text = axes.annotate(label.text, (label.x, label.y), xytext=(0, 0), textcoords="offset points", zorder=12)
    text.set(fontsize=10.5 if label.stable else 8.5, color=STABLE if label.stable else INK, annotation_clip=False)
    text.set(fontweight="bold" if label.stable else "normal", path_effects=[withStroke(linewidth=2.5, foreground="w")])
    return text


def _put(text: Annotation, spot: tuple[float, float, str, str]) -> BboxBase:
    """Move a label to a spot beside its entry and return the box that it fills there, in display coordinates."""
    dx, dy, ha, va = spot
    text.set(position=(dx, dy), ha=ha, va=va)
    return text.get_window_extent().padded(2.0)


def _hidden(box: BboxBase, drawn: Sequence[FloatArray], taken: Sequence[BboxBase], frame: BboxBase) -> float:
    """Return how much a label's box hides: markers count 1 each, crossed lines by length, labels and the rim most."""
    markers, *lines = (((xy > box.min) & (xy < box.max)).all(axis=1).sum() for xy in drawn)
    labels = sum(bool(box.overlaps(other)) for other in taken)
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return float(markers + LINE_COST * sum(lines) + TOO_MUCH * labels + (0 if inside else 2 * TOO_MUCH))
