"""Tests of the report: valid, self-contained, escaped, honest."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.hull_points import EntryText, HullPoints
from hullworks.analysis.report import (
    Intake,
    IntakeRow,
    ReportData,
    RunRow,
    VerdictRow,
    duration,
    prediction_errors,
    write_report,
)
from hullworks.analysis.verdicts import JudgementInput, judge, rounded_numbers
from hullworks.levels import LevelOfTheory
from hullworks.states import Role

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>alert('x')</script> | `code` [a](b)"
LEVEL = LevelOfTheory(
    code="qe",
    functional="PBE",
    protocol="fast",
    pseudo_family="gth-pbe",
    pseudo_hashes=(("Mg", "ab" * 32), ("Si", "cd" * 32), ("O", "ef" * 32)),
    kpoint_rule="0.30/A",
)
FORMULAS = ["Mg", "Si", "Mg2Si", "MgSi", "Mg3Si"]
HULL = ConvexHull.from_entries(FORMULAS, [0, 0, -0.153, 0.173, -0.08])
IDS = [f"entry-{i}" for i in range(len(FORMULAS))]


def row(i: int, predicted: float | None = None, name: str = "") -> VerdictRow:
    """Return the verdict on an entry of the Mg-Si hull."""
    role = Role.REFERENCE if predicted is None else Role.CANDIDATE
    (numbers,) = rounded_numbers(HULL.numbers([i]), IDS, FORMULAS)
    verdict = judge(JudgementInput(LEVEL.key, "7", role=role, **numbers))
    return VerdictRow(name or IDS[i], FORMULAS[i], role, verdict, predicted, "CHGNet 0.3.0", f"../runs/{i} a/static")


MISSING = VerdictRow(
    "oxide", "MgO", Role.CANDIDATE, judge(JudgementInput(LEVEL.key, "7", None, None, missing=("O",))), -0.2
)


@pytest.fixture
def data() -> ReportData:
    """Return a small campaign with everything that can go wrong in it, and hostile names."""
    entries = [EntryText(i, f, Role.REFERENCE) for i, f in zip(IDS, FORMULAS, strict=True)]
    return ReportData(
        title=f"Mg-Si {EVIL}",
        batch="b1",
        made_at=datetime(2026, 5, 4, 12, 0, tzinfo=UTC),
        versions=(("HullWorks", "0.1.0"), ("pw.x", "7.2")),
        level=LEVEL,
        hull_version="7",
        intake=Intake(9, 6, 1, 1, 1, (IntakeRow(EVIL, "cand.jsonl:4", "quarantined", EVIL),)),
        verdicts=(row(0), row(1), row(2), row(3, 0.2), row(4, 0.03, EVIL), MISSING),
        runs=(
            RunRow("Mg", "static", "converged", 31.0, ("mixing_beta 0.4 to 0.32",), folder="../runs/0/static"),
            RunRow("MgO", "relax", "code_error", 4.0, note=f"no convergence {EVIL}", folder="/abs", usable=False),
        ),
        points=(HullPoints.of(HULL, ("Mg", "Si"), entries, level_key=LEVEL.key, hull_version="7"),),
        cutoffs_Ry=(("Mg", 30, 120), ("Si", 30, 120)),
        wall_s=190.0,
        owner="demo",
    )


class Checker(HTMLParser):
    """Collects what a page loads, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember an element and its addresses."""
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, which must be this one."""
        assert self.open.pop() == tag


def check(path: Path) -> Checker:
    """Parse a page."""
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_the_page_is_whole_and_loads_nothing(data: ReportData, tmp_path: Path) -> None:
    """Every element is closed, the picture is inside, and links lead to files beside the report only."""
    page = check(write_report(data, tmp_path / "report"))
    assert page.tags.count("h1") == 1
    assert not {"script", "link", "iframe"} & set(page.tags)
    pictures = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    others = [address for address in page.addresses if address not in pictures]
    assert len(pictures) == 1
    assert "hull-Mg-Si.html" in others
    assert "../runs/3%20a/static" in others
    assert not any(re.match(r"[a-z]+:|/", address) for address in others)


def test_text_of_users_is_text(data: ReportData, tmp_path: Path) -> None:
    """Names, reasons and notes with markup in them appear as written, in the page and in Markdown."""
    path = write_report(data, tmp_path)
    page, markdown = path.read_text(encoding="utf-8"), (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert "<script" not in page
    assert "<script" not in markdown
    columns = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("|entry-")}
    assert columns == {12}


def test_the_report_says_what_a_verdict_must_not_lack(data: ReportData, tmp_path: Path) -> None:
    """Level, hull version, error bar, versions, short hashes of the batch's elements, gaps and causes are all there."""
    text = write_report(data, tmp_path).read_text(encoding="utf-8")
    for said in (LEVEL.key, "hull version 7", "25 meV/atom", "pw.x", "sha256 ababababab", "missing: O", "code_error",
                 "within error bar", "mixing_beta 0.4 to 0.32", "3 min 10 s", "1 quarantined"):  # fmt: skip
        assert said in text
    assert "efefefef" not in text


def test_writing_again_replaces(data: ReportData, tmp_path: Path) -> None:
    """A second report of the same data is byte for byte the first, and leaves no other file."""
    write_report(data, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(data, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert sorted(first) == [
        "hull-Mg-Si.html",
        "hull-Mg-Si.png",
        "report.html",
        "report.md",
    ]


def test_an_empty_campaign_has_a_report(data: ReportData, tmp_path: Path) -> None:
    """Before anything has run the report says so instead of failing."""
    empty = replace(data, verdicts=(), runs=(), points=(), intake=Intake(0, 0), wall_s=None)
    text = write_report(empty, tmp_path).read_text(encoding="utf-8")
    assert "0 rows came in" in text
    assert "still going on" in text


def test_prediction_errors_count_decided_candidates() -> None:
    """References, entries without a prediction and undecided verdicts do not count."""
    errors = prediction_errors((row(0), row(3, 0.2), row(4, 0.03), MISSING))
    assert errors is not None
    computed = [float(HULL.e_above_hull[i]) for i in (3, 4)]
    assert errors.n == 2
    assert errors.mae_eV == pytest.approx((abs(0.2 - computed[0]) + abs(0.03 - computed[1])) / 2)
    assert errors.bias_eV == pytest.approx((0.2 - computed[0] + 0.03 - computed[1]) / 2)
    assert (errors.same_side, errors.promised, errors.kept, errors.within_error_bar) == (2, 1, 1, 1)
    assert prediction_errors((row(0), MISSING)) is None


def test_a_stable_candidate_counts_with_its_depth() -> None:
    """Without Mg2Si the hull there runs from Mg3Si to Si; the prediction is compared with the distance from that."""
    errors = prediction_errors((row(2, -0.1),))
    assert errors is not None
    assert errors.bias_eV == pytest.approx(-0.1 - (-0.153 + 0.08 * 8 / 9))


def test_small_samples_are_called_small(data: ReportData, tmp_path: Path) -> None:
    """With two candidates the report does not pretend to judge the model."""
    assert "2 candidates are too few" in write_report(data, tmp_path).read_text(encoding="utf-8")


def test_times_are_read_by_people() -> None:
    """Seconds, minutes and hours as one would say them."""
    assert [duration(t) for t in (0.4, 59.6, 60, 3599, 3600)] == [
        "0 s",
        "1 min 0 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
    ]
