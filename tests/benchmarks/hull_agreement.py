"""Whether all answers of a run agree: with pymatgen's, after changes with a rebuild, compiled with not compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hull_data import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hull_data import Array
    from hull_sets import Folder


def agreement(folder: Folder, ours: dict[str, Any], modes: Sequence[str]) -> dict[str, Any]:
    """Return largest differences in eV/atom by what is compared, and what the peer's update got wrong.

    Args:
        folder: Holds the answers of all steps.
        ours: Our figures on this set.
        modes: The modes that were measured; the peer is compared with the last.
    """
    found: dict[str, Any] = {"promised": _among_ours(folder, ours, modes)}
    mode = modes[-1]
    built, asked = folder.answers(f"build_{mode}"), folder.answers(f"query_{mode}")
    if built and asked and (peer := folder.answers("peer_ask")):
        distance = np.abs(peer["e_to_hull"] - asked["e_to_hull"][peer["asked"]])
        found["promised"]["PatchedPhaseDiagram: entries"] = _largest(
            peer["e_above_hull"] - built["e_above_hull"][peer["rows"]]
        )  # fmt: skip
        found["promised"]["PatchedPhaseDiagram: unseen, with a patch"] = _largest(distance[peer["patched"]])
        found["unseen, by SLSQP"] = _largest(distance[~peer["patched"]])
    if built and (peer := folder.answers("peer_systems")):
        found["promised"]["one PhaseDiagram per system"] = _largest(
            peer["e_above_hull"] - built["e_above_hull"][peer["rows"]]
        )  # fmt: skip
    updated = folder.answers(f"update_{mode}")
    if updated and (peer := folder.answers("peer_update")):
        found["peer's update"] = _wrong(peer, updated["e_above_hull"])
    return found


def broken(found: dict[str, Any]) -> list[str]:
    """Return which promises of any set do not hold."""
    return [
        f"{name}: {what} differ by {value:.1e} eV/atom"
        for name, one in found.items()
        for what, value in one["promised"].items()
        if not value <= settings()["agreement"]
    ]


def _among_ours(folder: Folder, ours: dict[str, Any], modes: Sequence[str]) -> dict[str, float]:
    """Return the differences between our own ways to the same answers; other bits of canonical numbers are infinite."""
    found = {}
    for mode in modes:
        found[f"update and rebuild, {mode}"] = ours[mode]["update"]["differs_from_rebuild_eV"]
        found[f"largest doubt, {mode}"] = ours[mode]["verify"]["doubt_eV"]
    if len(modes) > 1:
        for name, key in (("build", "e_above_hull"), ("query", "e_to_hull")):
            two = [folder.answers(f"{name}_{mode}") for mode in modes]
            if two[0] and two[1]:
                found[f"compiled and not, {name}"] = _largest(two[0][key] - two[1][key])
        digests = {ours[mode]["numbers"]["digest"] for mode in modes}
        found["compiled and not, bits of all numbers"] = 0.0 if len(digests) == 1 else np.inf
    return found


def _wrong(peer: dict[str, Any], truth: Array) -> dict[str, Any]:
    """Return how often the peer's update is wrong, among the entries that were asked for in rebuilt spaces."""
    error = np.abs(peer["e_above_hull"] - truth[peer["rows"]])
    wrong = ~(error <= settings()["peer"]["wrong_by"])
    false = wrong & (peer["e_above_hull"] <= settings()["agreement"])
    return {
        "asked": len(error),
        "wrong": int(wrong.sum()),
        "falsely_stable": int(false.sum()),
        "largest_eV": _largest(error),
    }


def _largest(differences: Array) -> float:
    """Return the largest difference; NaN on both sides is agreement, and so is nothing to compare."""
    return float(np.nanmax(np.abs(differences), initial=0.0)) if len(differences) else 0.0
