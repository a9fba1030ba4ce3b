"""What the hull benchmark found as tables and a plot, and both written into the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hull_data import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

Results = dict[str, Any]

MODES: Final = ("numpy", "numba")
DOCUMENT: Final = "hull_performance.md"
PLOT: Final = "figures/hull_growth.svg"
MARKS: Final = ("<!-- {name} -->", "<!-- end of {name} -->")
"""Between these stands a table in the document."""


def tables(results: Results) -> dict[str, str]:
    """Return all tables by name, in Markdown."""
    every = {maker.__name__: maker(results) for maker in MAKERS}
    return every | ({"profiles": told} if (told := profiles(results)) else {})


def document(docs: Path, results: Results) -> None:
    """Write the tables between their marks in the document, and the plot beside it.

    Raises:
        ValueError: The document lacks the marks of a table.
    """
    path = docs / DOCUMENT
    text = path.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        begin, end = (mark.format(name=name) for mark in MARKS)
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if found:
            text = f"{before}{begin}\n{table}\n{end}{after}"
        elif name != "profiles":  # which are for those who look for what to improve
            raise ValueError(f"{path} has no place for {name}: {begin} {end}")
    path.write_text(text, encoding="utf-8")
    plot(docs / PLOT, results)


def conditions(results: Results) -> str:
    """Return what the figures were taken with."""
    told = results["conditions"]
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items() if version)
    return (
        f"Python {told['python']}, {packages}; processor: {told['processor']}, {told['cores']} cores; load average "
        f"{told['load_before']:.1f} at the start, {told['load_after']:.1f} at the end."
    )


def ratios(results: Results) -> str:
    """Return processor seconds of pymatgen and ours, task by task."""
    rows = []
    for name, peer in results["peers"].items():
        for task, theirs, ours in _compared(peer):
            row = [task, _size(results, name), _number(theirs)]
            for mode in _modes(results, name):
                seconds = ours(results["ours"][name][mode])
                row += [_number(seconds), f"{theirs / seconds:,.0f}"]
            rows.append(row)
    heads = ["task", "entries", "pymatgen, s"]
    for mode in MODES:
        heads += [f"{mode}, s", "times"] if any(mode in own for own in results["ours"].values()) else []
    return _table(heads, rows)


def _compared(peer: Results) -> Iterable[tuple[str, float, Callable[[Results], float]]]:
    """Yield (task, the peer's seconds, where ours are) of what was measured of the peer."""

    def build(own: Results) -> float:
        return float(own["build"]["build"]["cpu_s"])

    def canonical(own: Results) -> float:
        return build(own) + float(own["numbers"]["numbers"]["cpu_s"])

    if "ask" in peer:
        whole = peer["construct"]["construct"]["cpu_s"] + peer["ask"]["entries"]["cpu_s"]
        yield "build, PatchedPhaseDiagram", whole, build
        yield "the same, canonical decompositions", whole, canonical
    if "systems" in peer:
        yield "build, one PhaseDiagram per system", peer["systems"]["all"]["cpu_s"], build
    if "update" in peer:
        update = peer["update"]["update"]["cpu_s"] + peer["update"]["requery"]["cpu_s"]
        yield f"add {peer['update']['added']:,} entries", update, lambda own: float(own["update"]["add"]["cpu_s"])
    if "ask" in peer:
        unseen = peer["ask"]["unseen"]["cpu_s"]
        yield (
            f"ask for {settings()['unseen']['number']:,} unseen", unseen,
            lambda own: float(own["query"]["query"]["cpu_s"]),
        )  # fmt: skip


def growth(results: Results) -> str:
    """Return wall seconds and memory by size."""
    heads = [
        "entries", "origin", "compositions", "systems", "on hull", "code", "build, s", "µs/entry", "verify, s",
        "all numbers, s", "peak, MB", "of these input, MB",
    ]  # fmt: skip
    rows = []
    for name, mode, own in _measured(results):
        built, spent = own["build"], own["build"]["build"]["wall_s"]
        rows.append([
            f"{built['entries']:,}", name.partition(":")[0], f"{built['compositions']:,}", f"{built['systems']:,}",
            f"{built['vertices']:,}", mode, _number(spent), f"{1e6 * spent / built['entries']:.1f}",
            _number(own["verify"]["verify"]["wall_s"]), _number(own["numbers"]["numbers"]["wall_s"]),
            f"{built['peak_MB']:,.0f}", f"{built['before_MB']:,.0f}",
        ])  # fmt: skip
    return _table(heads, rows)


def changes(results: Results) -> str:
    """Return wall milliseconds of changes and queries by size."""
    heads = [
        "entries", "code", "add many, ms", "affected", "add one, ms", "95 % of them within, ms", "remove many, ms",
        "ask for unseen, ms", *(f"{k} elements, µs each" for k in settings()["unseen"]["elements"]),
    ]  # fmt: skip
    rows = []
    for _, mode, own in _measured(results):
        moved, asked = own["update"], own["query"]
        each = asked["queries"] / len(asked["by_size"])
        rows.append([
            f"{own['build']['entries']:,}", mode, _ms(moved["add"]), f"{moved['affected']:,}",
            f"{1e3 * moved['insert']['median_s']:.2f}", f"{1e3 * moved['insert']['p95_s']:.2f}", _ms(moved["remove"]),
            _ms(asked["query"]), *(f"{1e6 * one['wall_s'] / each:.1f}" for one in asked["by_size"].values()),
        ])  # fmt: skip
    return _table(heads, rows)


def input_and_output(results: Results) -> str:
    """Return what comes before the hull, and what a pickled hull takes."""
    heads = ["entries", "formulas, µs/entry", "amounts, µs/entry", "pickled, bytes/entry", "pickle, s", "read back, s"]
    rows = []
    for own in results["ours"].values():
        read, kept = own["convert"], own["numpy"]["pickled"]
        rows.append([
            f"{read['entries']:,}",
            *(f"{1e6 * read[key]['wall_s'] / read['entries']:.2f}" for key in ("from_formulas", "from_amounts")),
            f"{kept['bytes_per_entry']:.0f}", _number(kept["dumps"]["wall_s"]), _number(kept["loads"]["wall_s"]),
        ])  # fmt: skip
    return _table(heads, rows)


def first_use(results: Results) -> str:
    """Return what the first small hull of a process costs."""
    names = {"numpy": "without numba", "compiling": "numba, compiling", "from_cache": "numba, compiled before"}
    rows = [[names[key], _number(found["first_s"])] for key, found in results["first_use"].items()]
    return _table(["first small hull of a process", "s"], rows)


def agreements(results: Results) -> str:
    """Return the largest differences over all sets, and what pymatgen's update gets wrong."""
    worst: dict[str, float] = {}
    wrong = []
    for name, found in results["agreement"].items():
        for what, value in [*found["promised"].items(), *_slsqp(found)]:
            worst[what] = max(worst.get(what, 0.0), value)
        if update := found.get("peer's update"):
            wrong.append([
                _size(results, name), f"{update['asked']:,}", f"{update['wrong']:,}", f"{update['falsely_stable']:,}",
                f"{update['largest_eV']:.2f}",
            ])  # fmt: skip
    found_wrong = _table(
        ["entries", "asked after pymatgen's update", "wrong by > 1 meV/atom", "falsely stable", "largest, eV/atom"],
        wrong,
    )  # fmt: skip
    rows = [[what, f"{value:.0e}" if value else "0"] for what, value in worst.items()]
    return _table(["compared", "largest difference, eV/atom"], rows) + (f"\n\n{found_wrong}" if wrong else "")


def _slsqp(found: Results) -> list[tuple[str, float]]:
    name = "unseen, by SLSQP"
    return [(f"PatchedPhaseDiagram: {name}, which is not exact", found[name])] if name in found else []


def profiles(results: Results) -> str:
    """Return in which functions the builds spend their time, where that was measured."""
    rows = [
        [name, mode, one["function"], f"{one['share']:.1%}"]
        for name, mode, own in _measured(results)
        for one in own.get("profile", {}).get("shares", [])
    ]
    return _table(["set", "code", "function", "share"], rows) if rows else ""


MAKERS: Final = (conditions, ratios, changes, growth, input_and_output, first_use, agreements)
"""What writes the tables of the document, each by its name."""


def plot(path: Path, results: Results) -> None:
    """Draw wall time and memory against the number of entries, both axes logarithmic."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "hull", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        times, memory = figure.subplots(1, 2, width_ratios=(3, 2))
        for mode, style in zip(MODES, ("--", "-"), strict=True):
            _draw(times, memory, results, mode, style)
        _draw_peer(times, results)
        for axes, label in ((times, "seconds"), (memory, "peak memory, MB")):
            axes.set(xscale="log", yscale="log", xlabel="entries", ylabel=label)
            axes.grid(visible=True, which="major", alpha=0.3)
            axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
        figure.savefig(path, metadata={"Date": None})


def _draw(times: Axes, memory: Axes, results: Results, mode: str, style: str) -> None:
    """Draw what one kind of code takes."""
    lines: tuple[tuple[str, str, Callable[[Results], float]], ...] = (
        ("build", "C0", lambda own: own["build"]["build"]["wall_s"]),
        ("verify", "C2", lambda own: own["verify"]["verify"]["wall_s"]),
        (f"ask for {settings()['unseen']['number']:,}", "C1", lambda own: own["query"]["query"]["wall_s"]),
        (f"add {settings()['held_back']:,}", "C3", lambda own: own["update"]["add"]["wall_s"]),
        ("add one", "C4", lambda own: own["update"]["insert"]["median_s"]),
    )
    own = sorted((one["build"]["entries"], one) for _, which, one in _measured(results) if which == mode)
    if not own:
        return
    sizes = [size for size, _ in own]
    for label, colour, seconds in lines:
        times.plot(sizes, [seconds(one) for _, one in own], style, marker="o", ms=3, color=colour,
                   label=f"{label}, {mode}")  # fmt: skip
    memory.plot(sizes, [one["build"]["peak_MB"] for _, one in own], style, marker="o", ms=3, color="C0",
                label=f"build, {mode}")  # fmt: skip


def _draw_peer(times: Axes, results: Results) -> None:
    """Draw what pymatgen's build takes."""
    points = [
        (peer["construct"]["entries"], peer["construct"]["construct"]["wall_s"] + peer["ask"]["entries"]["wall_s"])
        for peer in results["peers"].values()
        if "ask" in peer
    ]
    if points:
        times.plot(*zip(*sorted(points), strict=True), ":", marker="s", ms=4, color="black", label="build, pymatgen")


def _measured(results: Results) -> list[tuple[str, str, Results]]:
    """Return (set, mode, our figures), the smaller sets first."""
    found = [(name, mode, own[mode]) for name, own in results["ours"].items() for mode in MODES if mode in own]
    return sorted(found, key=lambda one: (one[2]["build"]["entries"], one[1]))


def _modes(results: Results, name: str) -> list[str]:
    return [mode for mode in MODES if mode in results["ours"][name]]


def _size(results: Results, name: str) -> str:
    return f"{results['sets'][name]['built']:,}"


def _ms(timing: Results) -> str:
    return f"{1e3 * timing['wall_s']:.1f}"


def _number(seconds: float) -> str:
    """Return seconds with two or three digits that mean something."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows]]
    return "\n".join(lines)
