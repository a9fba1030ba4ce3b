"""Tests of the phase diagrams as pictures and as interactive pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.image import imread

from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.hull_points import EntryText, HullPoints, html_subscripts, math_subscripts, mixture_text
from hullworks.analysis.interactive import interactive_figure, write_interactive
from hullworks.analysis.plots import draw_phase_diagram, plot_phase_diagram
from hullworks.errors import HullError
from hullworks.states import Role

if TYPE_CHECKING:
    from pathlib import Path

FORMULAS = ["Mg", "Si", "Ge", "O", "Al", "Mg2Si", "Mg2Ge", "MgSi", "SiGe", "Mg2Si", "MgSiGe", "MgO", "SiO2", "Mg2SiO4"]
ENERGIES = [0, 0, 0, 0, 0, -0.153, -0.273, 0.173, 0.034, 0.016, 0.02, -3.0, -3.0, -3.1]
LABELS = {9: "Mg2Si (Ni2In)", 8: "SiGe <b>$new$</b>"}
SYSTEMS = ["Si", "Mg-Si", "Mg-Si-Ge", "Mg-Si-Ge-O", "Mg-Si-Ge-O-Al"]


def points(system: str, **changes: Any) -> HullPoints:
    """Return the entries of a system out of a small hull of five elements."""
    hull = ConvexHull.from_entries(FORMULAS, ENERGIES)
    entries = [
        EntryText(f"entry-{i}", formula, Role.CANDIDATE if 7 <= i <= 10 else Role.REFERENCE, LABELS.get(i, ""))
        for i, formula in enumerate(FORMULAS)
    ]
    made = HullPoints.of(hull, system.split("-"), entries, level_key="qe-pbe-fast-0a1b2c3d", hull_version="7")
    return HullPoints(**{**made.__dict__, **changes})


def texts(system: str) -> list[str]:
    """Return all texts in the picture of a system."""
    figure = draw_phase_diagram(points(system))
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(("system", "height"), [(system, 1000 if system == "Mg-Si" else 1200) for system in SYSTEMS])
def test_a_picture_has_its_size_and_shows_something(system: str, height: int, tmp_path: Path) -> None:
    """Every number of elements gives a PNG of 7.2 inches at 200 dpi with ink of the stable phases' blue."""
    path = plot_phase_diagram(points(system), tmp_path / "hull.png")
    pixels = imread(path)[..., :3]
    assert pixels.shape == (height, 1440, 3)
    blue = np.abs(pixels - np.array([0x0B, 0x55, 0x9F]) / 255).max(axis=2) < 0.02
    assert blue.sum() > 200
    assert 0.005 < (pixels.min(axis=2) < 0.9).mean() < 0.5


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_a_picture_may_be_of_vectors(suffix: str, tmp_path: Path) -> None:
    """The file's suffix chooses the format."""
    path = plot_phase_diagram(points("Mg-Si-Ge"), tmp_path / f"hull.{suffix}")
    assert path.read_bytes()[:5] == {"svg": b"<?xml", "pdf": b"%PDF-"}[suffix]


def test_a_picture_names_phases_level_and_hull_version() -> None:
    """Stable phases bear their formula, the others their distance as well, and the caption tells what all hold for."""
    seen = texts("Mg-Si-Ge")
    assert {"Mg$_{2}$Si", "Mg$_{2}$Ge", "Mg$_{2}$Si (Ni$_{2}$In) +169", "Mg", "Si", "Ge"} <= set(seen)
    caption = next(text for text in seen if "qe-pbe-fast-0a1b2c3d" in text)
    assert "hull version 7" in caption
    assert "5 of 9 entries on the hull" in caption


def test_labels_do_not_cover_each_other() -> None:
    """In the ternary demonstration system no two labels overlap."""
    figure = draw_phase_diagram(points("Mg-Si-Ge"))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) >= 9
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_tie_lines_join_what_coexists() -> None:
    """Mg2Si and Mg2Ge coexist, and so do Mg2Ge and Si, but not Mg2Si and Ge."""
    ternary = points("Mg-Si-Ge")
    pairs = {frozenset((ternary.formulas[a], ternary.formulas[b])) for a, b in ternary.tie_lines()}
    assert {frozenset(("Mg2Si", "Mg2Ge")), frozenset(("Mg2Ge", "Si"))} <= pairs
    assert frozenset(("Mg2Si", "Ge")) not in pairs
    assert points("Si").tie_lines() == []


def test_without_compounds_the_elements_coexist() -> None:
    """A system whose compounds all lie above the hull has the edges of the simplex as tie lines."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Ge", "MgSi"], [0, 0, 0, 0.1])
    entries = [EntryText(str(i), f) for i, f in enumerate(["Mg", "Si", "Ge", "MgSi"])]
    made = HullPoints.of(hull, ("Ge", "Mg", "Si"), entries, level_key="l-1", hull_version="1")
    assert sorted(made.tie_lines()) == [(0, 1), (0, 2), (1, 2)]


def test_entries_without_a_hull_are_left_out() -> None:
    """Of a system without an element's reference only what has an energy above hull is drawn."""
    hull = ConvexHull.from_entries(["Mg", "Mg2Si"], [0, -0.15])
    entries = [EntryText("a", "Mg"), EntryText("b", "Mg2Si")]
    made = HullPoints.of(hull, ("Mg", "Si"), entries, level_key="l-1", hull_version="1")
    assert made.formulas == ("Mg",)
    assert made.tie_lines() == []
    assert draw_phase_diagram(made).axes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": ("one",)}, "not as many ids"),
        ({"fractions": np.zeros((5, 3))}, "shape"),
        ({"e_above_hull_eV": np.full(5, np.nan)}, "finite"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    """Columns of unequal length and energies that are not finite are errors."""
    with pytest.raises(HullError, match=said):
        points("Mg-Si", **changes)


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    """A system without entries has neither picture nor page."""
    nobody = points("He")
    with pytest.raises(HullError, match="no entry"):
        plot_phase_diagram(nobody, tmp_path / "hull.png")
    with pytest.raises(HullError, match="no entry"):
        write_interactive(nobody, tmp_path / "hull.html")


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_interactive_page_needs_no_network(system: str, tmp_path: Path) -> None:
    """The page holds plotly itself, forbids the browser to load anything, and names all its entries."""
    text = write_interactive(points(system), tmp_path / "hull.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", text)
    assert "default-src 'none'" in text
    assert len(text) > 3_000_000
    assert all(name in text for name in points(system).ids)


def test_an_interactive_figure_tells_stable_from_unstable() -> None:
    """Traces say in words what is stable, and the pointer shows energies, decomposition, id and polymorphs."""
    figure = interactive_figure(points("Mg-Si-Ge"))
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert set(named) == {"stable, reference", "above the hull, candidate"}
    hover = next(text for text in named["above the hull, candidate"].customdata if "entry-9" in text)
    assert "above hull  169.0 meV/atom" in hover
    assert "decomposes into  Mg<sub>2</sub>Si" in hover
    stable = next(text for text in named["stable, reference"].customdata if "entry-5" in text)
    assert "also here: Mg<sub>2</sub>Si (Ni<sub>2</sub>In) +169.0" in stable
    assert not any("<b>$new" in text for text in named["above the hull, candidate"].customdata)


def test_the_lowest_unstable_entry_is_drawn() -> None:
    """Every entry of the system is in the figure once, the lowest above the hull too."""
    figure = interactive_figure(points("Mg-Si-Ge"))
    shown = [text for trace in figure.data if trace.name for text in trace.customdata]
    assert len(shown) == len(points("Mg-Si-Ge"))
    assert any("SiGe" in text and "34.0" in text for text in shown)


def test_only_numbers_of_formulas_are_lowered() -> None:
    """Names of structure types, identifiers and markup characters stay what they are."""
    assert math_subscripts("Mg3Si (L12) $5") == r"Mg$_{3}$Si (L12) \$5"
    assert html_subscripts("Ca(OH)2 & Ni2In'3") == "Ca(OH)<sub>2</sub> &amp; Ni<sub>2</sub>In&#x27;3"
    assert mixture_text([("Mg2Si", 1.0)]) == "Mg2Si"
