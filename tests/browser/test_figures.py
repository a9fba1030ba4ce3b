"""What a browser makes of the interactive phase diagrams and of the report."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.image import imread

from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.hull_points import EntryText, HullPoints
from hullworks.analysis.interactive import write_interactive
from hullworks.analysis.report import Intake, IntakeRow, ReportData, RunRow, VerdictRow, write_report
from hullworks.analysis.verdicts import JudgementInput, judge, rounded_numbers
from hullworks.levels import LevelOfTheory
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    Open = Callable[[Path], Any]

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
EVIL_IN_SCRIPT = "</script><script>alert(3)</script>"
LEVEL = LevelOfTheory(code="qe", functional="PBE", protocol="fast", pseudo_family="gth-pbe", pseudo_hashes=())
FORMULAS = ["Mg", "Si", "Ge", "O", "Al", "Mg2Si", "MgSi", "Mg2Si", "MgO", "SiGe", "Mg3Si"]
ENERGIES = [0, 0, 0, 0, 0, -0.153, 0.17302, 0.016, -3.0, 0.034, -0.08]
HULL = ConvexHull.from_entries(FORMULAS, ENERGIES)
IDS = [f"entry-{i}" for i in range(len(FORMULAS))]
ROLES = [Role.REFERENCE if i < 6 else Role.CANDIDATE for i in range(len(FORMULAS))]
STABLE_BLUE = np.array([0x0B, 0x55, 0x9F]) / 255


def points(system: str, labels: dict[int, str] | None = None) -> HullPoints:
    """Return the entries of a system."""
    names = labels or {}
    entries = [EntryText(IDS[i], FORMULAS[i], ROLES[i], names.get(i, "")) for i in range(len(FORMULAS))]
    return HullPoints.of(HULL, system.split("-"), entries, level_key=LEVEL.key, hull_version="7")


def plain(text: str | None) -> str:
    """Return text without the signs of no width that plotly puts around small numbers."""
    return (text or "").replace("\u200b", "")


def hovers(page: Page) -> list[str]:
    """Move the pointer over each point; return what appears."""
    seen = []
    for point in page.locator(".points path.point").all():
        # To the corner first, so that what appears is this point's.
        page.mouse.move(1, 1)
        page.locator(".hoverlayer .hovertext").wait_for(state="detached")
        box = point.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        shown = page.locator(".hoverlayer .hovertext").first
        shown.wait_for()
        lines = shown.locator("tspan.line").all_text_contents()
        seen.append("\n".join(map(plain, lines)))
    return seen


@pytest.mark.parametrize("system", ["Si", "Mg-Si", "Mg-Si-Ge", "Mg-Si-Ge-O", "Mg-Si-Ge-O-Al"])
def test_a_phase_diagram_opens_from_disk(system: str, visit: Open, tmp_path: Path) -> None:
    """For any number of elements the page draws without an error, in the colours of the hull, and asks nobody."""
    path = write_interactive(points(system), tmp_path / "hull.html")
    opened = visit(path)
    opened.page.locator(".js-plotly-plot .main-svg").first.wait_for()
    pixels = imread(io.BytesIO(opened.page.screenshot()))[..., :3]
    assert (np.abs(pixels - STABLE_BLUE).max(axis=2) < 0.03).sum() > 30
    assert opened.page.title() == system
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]


def test_the_pointer_shows_what_a_point_is(visit: Open, tmp_path: Path) -> None:
    """Each point of a binary shows formula, both energies, what it decomposes into, role and id."""
    opened = visit(write_interactive(points("Mg-Si"), tmp_path / "hull.html"))
    seen = {text.splitlines()[-1 if "also" not in text else -2]: text for text in hovers(opened.page)}
    assert seen["candidate  entry-6"].splitlines() == [
        "MgSi",
        "formation energy  +0.1730 eV/atom",
        "above hull  287.8 meV/atom",
        "decomposes into  0.75 Mg2Si + 0.25 Si",
        "candidate  entry-6",
    ]
    assert "also here: Mg2Si +169.0" in seen["reference  entry-5"].splitlines()
    assert len(seen) == len(points("Mg-Si"))
    assert opened.complaints == []


def test_a_picture_may_be_saved_without_network(visit: Open, tmp_path: Path) -> None:
    """The button for a picture gives a PNG file, made in the page itself."""
    opened = visit(write_interactive(points("Mg-Si"), tmp_path / "hull.html"))
    opened.page.locator(".js-plotly-plot").hover()
    with opened.page.expect_download() as download:
        opened.page.locator('[data-title="Download plot as a PNG"]').click()
    download.value.save_as(tmp_path / "picture.png")
    assert imread(tmp_path / "picture.png").shape[0] > 400
    assert (opened.foreign, opened.complaints) == ([], [])


@pytest.mark.parametrize("name", [EVIL, EVIL_IN_SCRIPT])
def test_a_name_in_a_phase_diagram_stays_text(name: str, visit: Open, tmp_path: Path) -> None:
    """A name with markup is shown as it is written, and nothing in it runs."""
    opened = visit(write_interactive(points("Mg-Si", {5: name, 6: name}), tmp_path / "hull.html"))
    shown = hovers(opened.page)
    assert sum(text.startswith(name) for text in shown) == 2
    assert name in plain(opened.page.locator(".textpoint").all_text_contents()[-1])
    assert opened.page.locator("img").count() == 0
    assert opened.complaints == []


def row(i: int, predicted: float | None = None, name: str = "") -> VerdictRow:
    """Return the verdict on an entry."""
    (numbers,) = rounded_numbers(HULL.numbers([i]), IDS, FORMULAS)
    verdict = judge(JudgementInput(LEVEL.key, "7", role=ROLES[i], **numbers))
    return VerdictRow(name or IDS[i], FORMULAS[i], ROLES[i], verdict, predicted, "a model", f"../runs/{i}")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report with verdicts of all kinds, and names that try to be more than text."""
    missing = judge(JudgementInput(LEVEL.key, "7", None, None, missing=("Cl",)))
    salt = VerdictRow("salt", "MgCl2", Role.CANDIDATE, missing)
    data = ReportData(
        title=f"Mg-Si {EVIL}",
        batch="b1",
        made_at=datetime(2026, 5, 4, 12, 0, tzinfo=UTC),
        versions=(("HullWorks", "0.1.0"),),
        level=LEVEL,
        hull_version="7",
        intake=Intake(5, 4, 0, 1, 0, (IntakeRow(EVIL, "batch.jsonl:4", "quarantined", EVIL),)),
        verdicts=(row(0), row(5), row(6, 0.2, EVIL), row(10, 0.03), salt),
        runs=(RunRow(EVIL, "static", "code_error", 4.0, note=EVIL, usable=False),),
        points=(points("Mg-Si"),),
    )
    return write_report(data, tmp_path / "report")


def test_the_report_opens_from_disk(report: Path, visit: Open) -> None:
    """The report shows its phase diagram and says which level and hull its verdicts hold at; it asks nobody."""
    opened = visit(report)
    page = opened.page
    width = page.locator("figure img").evaluate("image => image.complete && image.naturalWidth")
    assert width == 1440
    assert f"level {LEVEL.key} and hull version 7" in page.locator("main").inner_text()
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    assert opened.complaints == []


def table(page: Page, heading: str) -> Locator:
    """Return the table under a heading."""
    return page.locator("section", has=page.get_by_role("heading", name=heading, exact=True)).locator("table")


def test_the_report_shows_verdicts_with_flags(report: Path, visit: Open) -> None:
    """Each entry's row has its verdict, its energies, and its flags or what is missing."""
    page = visit(report).page
    columns = table(page, "Verdicts").locator("thead th").all_inner_texts()
    rows = [
        dict(zip(columns, line.locator("td").all_inner_texts(), strict=True))
        for line in table(page, "Verdicts").locator("tbody tr").all()
    ]
    by_name = {line["Entry"]: line for line in rows}
    assert by_name["entry-5"]["Verdict"] == "stable"
    assert by_name[EVIL]["Verdict"] == "unstable"
    assert by_name[EVIL]["DFT above hull"] == "287.8"
    assert by_name["salt"]["Verdict"] == "indeterminate"
    assert "missing: Cl" in by_name["salt"]["Flags and gaps"]
    (numbers,) = rounded_numbers(HULL.numbers([10]), IDS, FORMULAS)
    flags = judge(JudgementInput(LEVEL.key, "7", role=ROLES[10], **numbers)).flags
    assert flags
    assert by_name["entry-10"]["Flags and gaps"] == ", ".join(flag.value.replace("_", " ") for flag in flags)
    colours = {
        badge.inner_text(): badge.evaluate("badge => getComputedStyle(badge).backgroundColor")
        for badge in page.locator(".badge").all()
    }
    assert len(set(colours.values())) == len(colours) >= 3
    assert table(page, "Level of theory").get_by_text(LEVEL.key).count() == 1


def test_names_in_the_report_stay_text(report: Path, visit: Open) -> None:
    """Markup in a title, a name, a reason or a note is shown as it is written, and nothing in it runs."""
    opened = visit(report)
    page = opened.page
    assert page.locator("h1").inner_text() == f"Mg-Si {EVIL}"
    assert page.title() == f"Mg-Si {EVIL}"
    assert page.get_by_text(EVIL, exact=True).count() >= 4
    assert page.locator("script").count() == 0
    assert page.locator("img").count() == 1
    assert opened.complaints == []


def test_the_report_leads_to_its_interactive_figure(report: Path, visit: Open) -> None:
    """The link under the picture opens the interactive phase diagram that lies beside the report."""
    opened = visit(report)
    opened.page.get_by_role("link", name="explore it").click()
    opened.page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert opened.page.url == (report.parent / "hull-Mg-Si.html").as_uri()
    assert (opened.foreign, opened.complaints) == ([], [])


def test_a_page_that_misbehaves_is_noticed(visit: Open, tmp_path: Path) -> None:
    """What these tests rely on: requests to other hosts, errors and dialogs of a page are seen."""
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/x"><script>alert(1); console.error("oh"); missing()</script>')
    opened = visit(page)
    opened.page.wait_for_load_state()
    assert opened.foreign == ["http://127.0.0.1:9/x"]
    said = " ".join(opened.complaints)
    assert all(each in said for each in ("dialog: 1", "oh", "missing is not defined"))
