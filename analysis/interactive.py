"""Phase diagrams to explore in a browser: one self-contained HTML file that works without any network."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hullworks.analysis.compositions import SAME_COMPOSITION
from hullworks.analysis.hull_points import html_subscripts
from hullworks.analysis.labels import INK, STABLE
from hullworks.analysis.plots import BINARY, DRAWN, RAMP, scale_top_meV
from hullworks.states import Role

if TYPE_CHECKING:
    from pathlib import Path

    from plotly.graph_objects import Figure

    from hullworks.analysis.compositions import FloatArray
    from hullworks.analysis.hull_points import HullPoints

SYMBOLS: Final = {Role.REFERENCE: "circle", Role.CANDIDATE: "diamond"}
CONFIG: Final = {"displaylogo": False, "responsive": True, "plotlyServerURL": ""}
"""Settings of plotly's figure: no link to its maker's site, and no upload."""
HEIGHT_PX: Final = 620
EDGES: Final = "#b8c2cc"
ALSO_HERE: Final = 4
"""So many other entries of the same composition are told of at each."""
TETRAHEDRON: Final = np.array(
    [[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(3) / 2, 0], [0.5, np.sqrt(3) / 6, np.sqrt(2 / 3)]], dtype=np.float64
)
CAMERA: Final = {"eye": {"x": 0.25, "y": -1.6, "z": 0.45}, "center": {"x": 0.0, "y": 0.0, "z": -0.08}}
POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; worker-src blob:; font-src data:"
)
"""Lets the page run what it holds (plotly compiles its 3D drawing) and load nothing."""
PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>body {{ margin: 0; font-family: system-ui, sans-serif; }}</style>
<script>{library}</script>
</head>
<body>
{figure}
</body>
</html>
"""


def write_interactive(points: HullPoints, path: Path) -> Path:
    """Write the interactive phase diagram as one HTML file, plotly's library inside.

    Args:
        points: What to draw.
        path: The ``.html`` file.

    Returns:
        ``path``.

    Raises:
        HullError: There is nothing to draw.
    """
    figure = figure_html(points)
    page = PAGE.format(title=html.escape(points.system), policy=POLICY, library=plotly_library(), figure=figure)
    path.write_text(page, encoding="utf-8")
    return path


def plotly_library() -> str:
    """Return plotly's JavaScript, about 5 MB, to stand once in a page with figures."""
    from plotly.offline import get_plotlyjs

    library: str = get_plotlyjs()
    return library


def figure_html(points: HullPoints) -> str:
    """Return the interactive figure as a piece of HTML, for a page that holds plotly's library."""
    figure, name = interactive_figure(points), f"hull-{points.system}"  # plotly's own name would differ every time
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=name)
    return text


def interactive_figure(points: HullPoints) -> Figure:
    """Return the plotly figure of a phase diagram: 2, 3 or 4 elements drawn, others as energies above hull.

    Raises:
        HullError: There is nothing to draw.
    """
    from plotly.graph_objects import Figure

    points.require_some()
    traces, axes = {2: _binary, 3: _ternary, 4: _quaternary}.get(len(points.elements), _ladder)(points)
    shown = f"{int(points.stable.sum())} of {len(points)} entries on the hull"
    caption = f"level {points.level_key} · hull version {points.hull_version} · {shown}"
    figure = Figure(traces)
    figure.update_layout(
        title={"text": f"<b>{'–'.join(points.elements)}</b><br><sub>{html.escape(caption)}</sub>", "x": 0.02},
        template="plotly_white",
        font={"color": INK, "family": "system-ui, sans-serif"},
        hoverlabel={"bgcolor": "white", "font": {"color": INK}},
        height=HEIGHT_PX,
        margin={"l": 60, "r": 30, "t": 90, "b": 60},
        legend={"orientation": "h", "y": -0.12},
        **axes,
    )
    return figure


def _binary(points: HullPoints) -> tuple[list[Any], dict[str, Any]]:
    at = np.column_stack([points.fractions[:, 1], points.formation_energy_eV])
    first, second = points.elements
    axes = {
        "xaxis": {"title": {"text": f"atomic fraction of {second} in {first}–{second}"}, "range": [-0.05, 1.05]},
        "yaxis": {"title": {"text": "formation energy (eV/atom)"}, "zerolinecolor": EDGES},
    }
    return _traces(points, at, "Scatter", ("x", "y")), axes


def _ternary(points: HullPoints) -> tuple[list[Any], dict[str, Any]]:
    left, right, top = points.elements
    sides = {
        axis: {"title": {"text": f"<b>{symbol}</b>"}, "showticklabels": False, "ticks": "", "gridcolor": "#e7ebef",
               "linecolor": EDGES, "dtick": 0.2, "layer": "below traces"}
        for axis, symbol in zip(("aaxis", "baxis", "caxis"), (top, left, right), strict=True)
    }  # fmt: skip
    traces = _traces(points, points.fractions[:, [2, 0, 1]], "Scatterternary", ("a", "b", "c"))
    return traces, {"ternary": {"sum": 1, "bgcolor": "#f7f9fb", **sides}}


def _quaternary(points: HullPoints) -> tuple[list[Any], dict[str, Any]]:
    from plotly.graph_objects import Scatter3d

    corners = TETRAHEDRON
    edges = np.array([[*corners[[a, b]], [np.nan] * 3] for a in range(4) for b in range(a)]).reshape(-1, 3)
    middle = corners.mean(axis=0)
    names = dict(zip("xyz", (middle + 1.1 * (corners - middle)).T, strict=True))
    style = {"hoverinfo": "skip", "showlegend": False}
    frame = Scatter3d(
        **dict(zip("xyz", edges.T, strict=True)), mode="lines", line={"color": EDGES, "width": 3}, **style
    )
    labels = Scatter3d(**names, mode="text", text=[f"<b>{symbol}</b>" for symbol in points.elements],
                       textfont={"size": 18}, **style)  # fmt: skip
    hidden = {axis: {"visible": False} for axis in ("xaxis", "yaxis", "zaxis")}
    scene = {**hidden, "aspectmode": "data", "camera": CAMERA}
    return [frame, labels, *_traces(points, points.fractions @ corners, "Scatter3d", ("x", "y", "z"))], {"scene": scene}


def _ladder(points: HullPoints) -> tuple[list[Any], dict[str, Any]]:
    """Energies above hull side by side, for one element and for more elements than can be drawn."""
    rank = np.empty(len(points))
    rank[points.order()] = np.arange(len(points))
    axes = {
        "xaxis": {"title": {"text": "entries from the hull upwards"}, "showticklabels": False},
        "yaxis": {"title": {"text": "energy above hull (eV/atom)"}, "rangemode": "tozero"},
    }
    return _traces(points, np.column_stack([rank, points.e_above_hull_eV]), "Scatter", ("x", "y")), axes


def _traces(points: HullPoints, at: FloatArray, kind: str, names: tuple[str, ...]) -> list[Any]:
    """Return the tie lines, then per role the entries above the hull and those on it, at their places, (n, d)."""
    import plotly.graph_objects as go

    make = getattr(go, kind)
    order = points.order()[::-1]  # the lowest last, so that it lies on top
    traces = [make(**_tie_lines(points, at, names))]
    for stable in (False, True):
        for role in Role:
            some = [i for i in order if points.stable[i] == stable and points.roles[i] == role]
            if not some:
                continue
            look = _on_hull(points, some, kind) if stable else _above_hull(points, some, kind)
            trace = make(
                **dict(zip(names, at[some].T, strict=True)),
                name=f"{'stable' if stable else 'above the hull'}, {role}",
                customdata=[_hover(points, i) for i in some],
                hovertemplate="%{customdata}<extra></extra>",
                **look,
            )
            traces.append(trace if kind == "Scatter3d" else trace.update(cliponaxis=False))
    return traces


def _tie_lines(points: HullPoints, at: FloatArray, names: tuple[str, ...]) -> dict[str, Any]:
    pairs = points.tie_lines() if len(points.elements) in DRAWN else []
    ends = np.array([[*at[[a, b]], [np.nan] * at.shape[1]] for a, b in pairs]).reshape(-1, at.shape[1])
    style = {"mode": "lines", "line": {"color": STABLE, "width": 2.5}, "hoverinfo": "skip", "showlegend": False}
    return {**dict(zip(names, ends.T, strict=True)), **style}


def _on_hull(points: HullPoints, some: list[int], kind: str) -> dict[str, Any]:
    """Return the look of stable entries; the lowest of each composition bears its name, unless a corner does."""
    lowest, corner = points.polymorph_rank() == 0, (points.fractions == 1).any(axis=1) & (kind != "Scatter")
    size = 6 if kind == "Scatter3d" else 13
    return {
        "mode": "markers+text",
        "text": [f"<b>{html_subscripts(points.labels[i])}</b>" if lowest[i] and not corner[i] else "" for i in some],
        "textposition": "bottom center" if len(points.elements) == BINARY else "top center",
        "textfont": {"color": STABLE, "size": 13},
        "marker": {
            "color": STABLE,
            "symbol": SYMBOLS[points.roles[some[0]]],
            "size": size,
            "opacity": 1,
            "line": {"color": "white", "width": 1.5},
        },
    }


def _above_hull(points: HullPoints, some: list[int], kind: str) -> dict[str, Any]:
    """Return the look of entries above the hull: coloured by energy, and larger than what may lie on top of them."""
    size = np.full(len(some), 4.5 if kind == "Scatter3d" else 10.0)
    if len(points.elements) in DRAWN[1:]:
        size *= 1 + 0.45 * np.minimum(points.polymorph_rank()[some], 3)
    return {
        "mode": "markers",
        "marker": {
            "color": points.e_above_hull_eV[some] * 1000,
            **_colour_scale(points),
            "showscale": points.roles[some[0]] is _first_above(points),
            "symbol": SYMBOLS[points.roles[some[0]]],
            "size": size,
            "opacity": 1,
            "line": {"color": INK, "width": 0.8},
        },
    }


def _first_above(points: HullPoints) -> Role:
    """Return the role of the first trace above the hull, which bears the colour bar."""
    return min((r for r, stable in zip(points.roles, points.stable, strict=True) if not stable), key=list(Role).index)


def _colour_scale(points: HullPoints) -> dict[str, Any]:
    return {
        "colorscale": [[i / (len(RAMP) - 1), colour] for i, colour in enumerate(RAMP)],
        "cmin": 0,
        "cmax": scale_top_meV(points),
        "colorbar": {"title": {"text": "above hull<br>(meV/atom)"}, "thickness": 12, "len": 0.5, "outlinewidth": 0},
    }


def _hover(points: HullPoints, i: int) -> str:
    """Return what the pointer shows of an entry, the others of its composition included."""
    same = np.abs(points.fractions - points.fractions[i]).max(axis=1) < SAME_COMPOSITION
    others = [j for j in points.order() if same[j] and j != i][:ALSO_HERE]
    lines = [
        f"<b>{html_subscripts(points.labels[i])}</b>",
        f"formation energy  {points.formation_energy_eV[i]:+.4f} eV/atom",
        f"above hull  {points.e_above_hull_eV[i] * 1000:.1f} meV/atom",
        f"decomposes into  {html_subscripts(points.decompositions[i])}",
        f"{points.roles[i]}  {html.escape(points.ids[i])}",
        *(f"also here: {html_subscripts(points.labels[j])} +{points.e_above_hull_eV[j] * 1000:.1f}" for j in others),
    ]
    return "<br>".join(lines)
