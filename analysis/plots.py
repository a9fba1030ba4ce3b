"""Phase diagrams as pictures: binary hulls, ternary triangles, quaternary tetrahedra, and bars for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hullworks.analysis.hull_points import math_subscripts
from hullworks.analysis.labels import INK, QUIET, STABLE, labels_of, place_labels
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    from hullworks.analysis.compositions import FloatArray
    from hullworks.analysis.hull_points import HullPoints

FAINT: Final = "#d9dfe5"
RAMP: Final = ("#ffd166", "#f8961e", "#d1495b", "#7a1f3d")
"""Energies above hull from low to high, in falling lightness, so that they are told apart in grey as well."""
MARKS: Final = {Role.REFERENCE: "o", Role.CANDIDATE: "D"}
TRIANGLE: Final = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
"""Corners of the ternary triangle, first element at the lower left, then lower right, then top."""
TETRAHEDRON: Final = np.array([[0.0, 0.14], [0.66, 0.0], [1.0, 0.36], [0.44, 0.93]])
"""Corners of the quaternary tetrahedron as seen from one side: any projection of a tetrahedron maps fractions linearly;
the edge from the first to the third lies behind."""
BARS: Final = 28
"""So many entries, the lowest, are shown as bars."""
BINARY: Final = 2
DRAWN: Final = (2, 3, 4)
"""Numbers of elements that are drawn as a diagram; others as bars."""


def plot_phase_diagram(points: HullPoints, path: Path, *, title: str = "", dpi: int = 200) -> Path:
    """Draw the phase diagram of a chemical system and write it to a file.

    Args:
        points: What to draw.
        path: File to write; its suffix chooses the format: ``.png``, ``.svg`` or ``.pdf``.
        title: Heading; by default the chemical system.
        dpi: Dots per inch of a PNG.

    Returns:
        ``path``.

    Raises:
        HullError: There is nothing to draw.
    """
    points.require_some()
    figure = draw_phase_diagram(points, title=title)
    figure.savefig(path, dpi=dpi)
    return path


def draw_phase_diagram(points: HullPoints, *, title: str = "") -> Figure:
    """Return the figure of a phase diagram, bound to no window and to no global state of matplotlib."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(points.elements)
    draw = {BINARY: _binary, 3: _simplex, 4: _simplex}.get(k, _bars)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.edgecolor": QUIET}):
        figure = Figure(figsize=(7.2, 5.0) if k == BINARY else (7.2, 6.0), facecolor="white")
        FigureCanvasAgg(figure)
        heading = figure.text(0.055, 0.945, math_subscripts(title or "–".join(points.elements)), fontsize=17)
        heading.set(fontweight="bold", va="center")
        figure.text(
            0.055, 0.902 if k != BINARY else 0.89, "phase diagram at 0 K", fontsize=9.5, color=QUIET, va="center"
        )
        draw(figure, points)
        figure.text(0.055, 0.035, _caption(points), fontsize=8, color=QUIET, va="center")
        figure.canvas.draw()
    return figure


def _caption(points: HullPoints) -> str:
    parts = [
        f"level {points.level_key}",
        f"hull version {points.hull_version}",
        f"{int(points.stable.sum())} of {len(points)} entries on the hull",
        *(["+n: n meV/atom above it"] if len(points.elements) in DRAWN else []),
    ]
    return "   ·   ".join(parts).replace("$", r"\$")


def scale_top_meV(points: HullPoints) -> int:
    """Return where the colour scale of energies above hull ends: a round number that most entries stay below."""
    most = float(np.quantile(points.e_above_hull_eV, 0.9)) * 1000
    return next((step for step in (50, 100, 200, 300) if most <= step), 500)


def _colours(points: HullPoints) -> ScalarMappable:
    """Return the colour scale of energies above hull in meV/atom."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    return ScalarMappable(Normalize(0, scale_top_meV(points)), LinearSegmentedColormap.from_list("above_hull", RAMP))


def _colour_bar(figure: Figure, colours: ScalarMappable, box: tuple[float, float, float, float]) -> None:
    bar = figure.colorbar(colours, cax=figure.add_axes(box), extend="max")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=QUIET, length=2)
    bar.set_label("energy above hull (meV/atom)", fontsize=8.5, color=QUIET)


def _legend(axes: Axes, points: HullPoints, **where: Any) -> None:
    """Explain shape (what an entry is for) and fill (stable or not), for what occurs."""
    from matplotlib.lines import Line2D

    handles = []
    for stable, colour, edge in ((True, STABLE, "white"), (False, RAMP[1], INK)):
        for role, mark in MARKS.items():
            if any(s == stable and r == role for s, r in zip(points.stable, points.roles, strict=True)):
                handle = Line2D([], [], marker=mark, color=colour, markeredgecolor=edge, markeredgewidth=0.7)
                handle.set(linestyle="", markersize=7, label=f"{'stable' if stable else 'above the hull'}, {role}")
                handles.append(handle)
    axes.legend(handles=handles, frameon=False, fontsize=8.5, labelcolor=INK, handletextpad=0.2, **where)


def _scatter(axes: Axes, points: HullPoints, at: FloatArray, colours: ScalarMappable) -> None:
    """Draw all entries at their places, (n, 2): the lowest on top, polymorphs as rings around the lowest."""
    flat = len(points.elements) == BINARY  # polymorphs lie above each other, and the higher may overlap the lower
    rank = np.zeros(len(points)) if flat else np.minimum(points.polymorph_rank(), 3)
    for i in points.order()[::-1]:
        stable = bool(points.stable[i])
        axes.scatter(
            at[i, 0],
            at[i, 1],
            s=(70 if stable else 44) * (1 + 1.1 * rank[i]),
            marker=MARKS[points.roles[i]],
            color=STABLE if stable else colours.to_rgba(points.e_above_hull_eV[i] * 1000),
            edgecolors="white" if stable else INK,
            linewidths=1.1 if stable else 0.6,
            zorder=6 + (3 - 6 * flat) * stable - rank[i] / 9,
            clip_on=False,
        )


def _binary(figure: Figure, points: HullPoints) -> None:
    """Formation energy over composition, with the hull as a line."""
    axes = figure.add_axes((0.115, 0.16, 0.72, 0.68))
    colours = _colours(points)
    x, y = points.fractions[:, 1], points.formation_energy_eV
    at = np.column_stack([x, y])
    ties = [at[[a, b]] for a, b in points.tie_lines()]
    axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    axes.vlines(x, y - points.e_above_hull_eV, y, color=FAINT, linewidth=1, zorder=1)
    for tie in ties:
        axes.plot(*tie.T, color=STABLE, linewidth=1.8, zorder=2)
    low, high = min(float(y.min()), -0.02), max(float(y.max()), 0.02)
    axes.set(xlim=(-0.04, 1.04), ylim=(low - 0.14 * (high - low), high + 0.1 * (high - low)))
    _scatter(axes, points, at, colours)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=QUIET, labelsize=9)
    first, second = points.elements
    axes.set_xlabel(f"atomic fraction of {second} in {first}–{second}", color=INK)
    axes.set_ylabel("formation energy (eV/atom)", color=INK)
    _colour_bar(figure, colours, (0.875, 0.3, 0.016, 0.42))
    _legend(axes, points, loc="lower right", bbox_to_anchor=(1.02, 1.03), ncols=2, columnspacing=1.0)
    place_labels(axes, labels_of(points, at), at, ties, axes.bbox)


def _simplex(figure: Figure, points: HullPoints) -> None:
    """The Gibbs triangle, or the composition tetrahedron in projection, with its tie lines."""
    axes = figure.add_axes((0.05, 0.07, 0.8, 0.84))
    axes.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.1, 0.97))
    axes.axis("off")
    corners = TRIANGLE if len(points.elements) == len(TRIANGLE) else TETRAHEDRON
    edges = [corners[[a, b]] for b in range(len(corners)) for a in range(b)]
    at = points.fractions @ corners
    ties = [at[[a, b]] for a, b in points.tie_lines()]
    _frame(axes, corners, edges)
    flat = len(corners) == len(TRIANGLE)
    for tie in ties:
        axes.plot(*tie.T, color=STABLE, linewidth=1.7 if flat else 1.0, alpha=1 if flat else 0.6, zorder=4)
    colours = _colours(points)
    _scatter(axes, points, at, colours)
    middle = corners.mean(axis=0)
    names = []
    for symbol, corner in zip(points.elements, corners, strict=True):
        outwards = (corner - middle) / np.linalg.norm(corner - middle)
        name = axes.annotate(symbol, corner, xytext=outwards * 21, textcoords="offset points", zorder=12)
        name.set(fontsize=16, fontweight="bold", ha="center", va="center")
        names.append(name.get_window_extent())
    _colour_bar(figure, colours, (0.885, 0.27, 0.016, 0.4))
    _legend(axes, points, loc="upper right", bbox_to_anchor=(1.13, 1.04))
    pure = points.stable & (points.fractions == 1).any(axis=1)
    labels = [label for label in labels_of(points, at) if (label.x, label.y) not in set(map(tuple, at[pure]))]
    place_labels(axes, labels, at, [*edges, *ties], figure.bbox, names)


def _frame(axes: Axes, corners: FloatArray, edges: Sequence[FloatArray]) -> None:
    """Draw the triangle with lines at every fifth, or the tetrahedron with its hidden edge broken."""
    if len(corners) == len(TRIANGLE):
        axes.fill(*corners.T, facecolor="#f7f9fb", zorder=0)
        for share in (0.2, 0.4, 0.6, 0.8):
            for j in range(3):
                ends = np.zeros((2, 3))
                ends[:, j], ends[0, (j + 1) % 3], ends[1, (j + 2) % 3] = share, 1 - share, 1 - share
                axes.plot(*(ends @ corners).T, color=FAINT, linewidth=0.6, zorder=1)
    hidden = corners[[0, 2]] if len(corners) > len(TRIANGLE) else None
    for edge in edges:
        behind = hidden is not None and np.array_equal(edge, hidden)
        axes.plot(*edge.T, color=INK, linewidth=1.1, linestyle=(0, (4, 3)) if behind else "-", zorder=2)


def _bars(figure: Figure, points: HullPoints) -> None:
    """Energies above hull as bars: for one element, and for more elements than can be drawn."""
    axes = figure.add_axes((0.3, 0.12, 0.62, 0.74))
    colours, shown = _colours(points), points.order()[:BARS][::-1]
    above = points.e_above_hull_eV[shown] * 1000
    axes.barh(range(len(shown)), above, height=0.55, color=colours.to_rgba(above), zorder=2)
    on_hull = np.flatnonzero(points.stable[shown])
    axes.scatter(np.zeros(len(on_hull)), on_hull, s=60, color=STABLE, edgecolors="white", zorder=5, clip_on=False)
    axes.set_yticks(range(len(shown)), [math_subscripts(points.labels[i]) for i in shown], fontsize=9)
    for place, value in enumerate(above):
        axes.text(
            value, place, "   stable" if place in on_hull else f" {value:.0f}", va="center", fontsize=8, color=QUIET
        )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set(xlim=(0, max(float(above.max()) * 1.12, 1.0)), ylim=(-0.7, len(shown) - 0.3))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("energy above hull (meV/atom)", color=INK)
    if len(points) > len(shown):
        axes.set_title(f"the {len(shown)} lowest of {len(points)} entries", fontsize=9, color=QUIET, loc="left")
