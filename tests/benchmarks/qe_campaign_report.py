"""What the recovery campaign found as tables, written into the documents."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Results = dict[str, Any]

DOCUMENT: Final = "qe_campaign.md"
MARKS: Final = ("<!-- {name} -->", "<!-- end of {name} -->")
ARMS: Final = {"none": "one attempt", "aiida": "AiiDA's repairs", "hullworks": "HullWorks"}


def tables(results: Results) -> dict[str, str]:
    """Return all tables by name, in Markdown."""
    return {maker.__name__: maker(results) for maker in (summary, by_category, every_case)}


def document(docs: Path, results: Results) -> None:
    """Write the tables between their marks in the document.

    Raises:
        ValueError: The document lacks the marks of a table.
    """
    path = docs / DOCUMENT
    text = path.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        begin, end = (mark.format(name=name) for mark in MARKS)
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{path} has no place for {name}: {begin} {end}")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def falls_short(results: Results) -> list[str]:
    """Return the cases that the product did not end right."""
    own = [(row["name"], row["arms"].get("hullworks")) for row in results["cases"]]
    rows = [(name, found["verdict"]) for name, found in own if found]
    return [f"{name}: {verdict}" for name, verdict in rows if verdict not in {"right", "named"}]


def summary(results: Results) -> str:
    """Return one line for each arm: how its runs ended, and processor seconds."""
    recoverable, fatal = _split(results)
    rows = [_line(results, arm, recoverable, fatal) for arm in _arms(results)]
    heads = ["", f"of {len(recoverable)} that can be healed: right", "wrong result claimed", "given up",
             f"of {len(fatal)} that cannot: right cause", "another or no cause", "result claimed",
             "CPU, s"]  # fmt: skip
    return _table(heads, rows)


def _line(results: Results, arm: str, recoverable: list[Results], fatal: list[Results]) -> list[str]:
    healed = Counter(row["arms"][arm]["verdict"] for row in recoverable)
    ended = Counter(row["arms"][arm]["verdict"] for row in fatal)
    seconds = sum(row["arms"][arm]["pw_cpu_s"] for row in results["cases"])
    counts = [healed["right"], healed["wrong"], healed["gave up"], ended["named"], ended["failed"], ended["wrong"]]
    return [ARMS[arm], *map(str, counts), f"{seconds:.0f}"]


def by_category(results: Results) -> str:
    """Return how many cases of each category ended right in each arm, false results in brackets."""
    groups: dict[str, list[Results]] = {}
    for row in results["cases"]:
        groups.setdefault(row["category"], []).append(row)
    rows = []
    for name, group in groups.items():
        counts = [Counter(row["arms"][arm]["verdict"] for row in group) for arm in _arms(results)]
        rows.append([name, str(len(group)), *(_right_and_wrong(count) for count in counts)])
    return _table(["category", "cases", *(ARMS[arm] for arm in _arms(results))], rows)


def _right_and_wrong(count: Counter[str]) -> str:
    right = count["right"] + count["named"]
    return f"{right} ({count['wrong']} wrong)" if count["wrong"] else str(right)


def every_case(results: Results) -> str:
    """Return one line for each case: how each arm ended, and what the product did."""
    rows = []
    for row in results["cases"]:
        right = row["right_end"] if isinstance(row["right_end"], str) else " or ".join(row["right_end"])
        ends = [row["arms"][arm]["verdict"] for arm in _arms(results)]
        story = row["arms"].get("hullworks", {}).get("story", [])
        rows.append([f"`{row['name']}`", row["version"], right, *ends, _short(story)])
    heads = ["case", "pw.x", "right end", *(ARMS[arm] for arm in _arms(results)), "what HullWorks did"]
    return _table(heads, rows)


def _short(story: Sequence[str]) -> str:
    """Return the cures by name, each with how often."""
    names = [item.partition(": ")[2] if ": " in item else item for item in story]
    counts = Counter(name.replace("|", "/") for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count}×)" for name, count in counts.items())


def _split(results: Results) -> tuple[list[Results], list[Results]]:
    rows = results["cases"]
    healed = [row for row in rows if row["right_end"] == "converged"]
    return healed, [row for row in rows if row["right_end"] != "converged"]


def _arms(results: Results) -> list[str]:
    return [arm for arm in ARMS if all(arm in row["arms"] for row in results["cases"])]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]]
    return "\n".join(lines)
