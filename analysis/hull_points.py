"""What a figure of a phase diagram shows: the entries of one chemical system as columns, and their tie lines."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Self

import numpy as np

from hullworks.analysis.convex_hull import ON_HULL_eV
from hullworks.elements import ELEMENTS
from hullworks.errors import HullError
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hullworks.analysis.compositions import FloatArray, IntArray
    from hullworks.analysis.convex_hull import ConvexHull

WORD = re.compile(r"[A-Za-z0-9.()\[\]]+")
SYMBOL = re.compile(r"[A-Z][a-z]?|[a-z]")
NUMBER = re.compile(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)")
UPRIGHT = -1e-9
"""A facet whose outward normal has no larger energy component than this is part of the lower hull, not a side wall."""


@dataclass(frozen=True, eq=False)
class HullPoints:
    """The n entries of one chemical system of k elements, ready to be drawn.

    Attributes:
        elements: Element symbols in the order in which the figure places them.
        formulas: Chemical formula of each entry.
        fractions: float64, shape (n, k): atomic fractions in the order of ``elements``.
        formation_energy_eV: float64, shape (n,), eV/atom.
        e_above_hull_eV: float64, shape (n,), eV/atom, >= 0.
        stable: bool, shape (n,).
        ids: Entry ids.
        roles: What each entry is for.
        decompositions: What each entry decomposes into, as text.
        level_key: Key of the one level of theory of all entries.
        hull_version: Name of the hull version.
        labels: What the figure writes at an entry; formulas where empty.

    Raises:
        HullError: The columns have different lengths, or an energy is not finite.
    """

    elements: tuple[str, ...]
    formulas: tuple[str, ...]
    fractions: FloatArray
    formation_energy_eV: FloatArray
    e_above_hull_eV: FloatArray
    stable: NDArray[np.bool_]
    ids: tuple[str, ...]
    roles: tuple[Role, ...]
    decompositions: tuple[str, ...]
    level_key: str
    hull_version: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labels:
            object.__setattr__(self, "labels", self.formulas)
        names = ("formation_energy_eV", "e_above_hull_eV", "stable", "ids", "roles", "decompositions", "labels")
        lengths = {name: len(getattr(self, name)) for name in names} | {"fractions": len(self.fractions)}
        if wrong := [name for name, length in lengths.items() if length != len(self.formulas)]:
            raise HullError(f"{len(self.formulas)} formulas, but not as many {', '.join(wrong)}", self.system)
        if self.fractions.shape != (len(self), len(self.elements)):
            raise HullError(f"fractions have the shape {self.fractions.shape}", self.system)
        if not np.isfinite([*self.formation_energy_eV, *self.e_above_hull_eV]).all():
            raise HullError("an energy to draw is not finite", self.system, "Leave out entries without a hull.")

    def __len__(self) -> int:
        return len(self.formulas)

    @property
    def system(self) -> str:
        """The chemical system, as ``Mg-Si``."""
        return "-".join(self.elements)

    @classmethod
    def of(
        cls,
        hull: ConvexHull,
        elements: Sequence[str],
        entries: Sequence[EntryText],
        *,
        level_key: str,
        hull_version: str,
    ) -> Self:
        """Collect the entries of a hull within some elements; those without an energy above hull are left out.

        Args:
            hull: The hull.
            elements: The chemical system, in the order in which the figure places it.
            entries: Texts of all entries of the hull, by entry index.
            level_key: Key of the level of theory.
            hull_version: Name of the hull version.
        """
        above, formation, rows = hull.e_above_hull, hull.formation_energy_per_atom, list(hull.compositions)
        shown = [i for i, (system, _) in enumerate(rows) if set(system) <= set(elements) and np.isfinite(above[i])]
        fractions = np.zeros((len(shown), len(elements)))
        for row, i in enumerate(shown):
            fractions[row, [list(elements).index(symbol) for symbol in rows[i][0]]] = rows[i][1]
        texts = [entries[i] for i in shown]
        return cls(
            elements=tuple(elements),
            formulas=tuple(text.formula for text in texts),
            fractions=fractions,
            formation_energy_eV=formation[shown],
            e_above_hull_eV=above[shown],
            stable=above[shown] <= ON_HULL_eV,
            ids=tuple(text.entry_id for text in texts),
            roles=tuple(text.role for text in texts),
            decompositions=tuple(
                mixture_text([(entries[j].formula, share) for j, share in hull.decomposition(i)]) for i in shown
            ),
            level_key=level_key,
            hull_version=hull_version,
            labels=tuple(text.label or text.formula for text in texts),
        )

    def require_some(self) -> None:
        """Raise `HullError` when there is no entry to draw."""
        if not len(self):
            raise HullError("there is no entry with an energy above hull to draw", self.system)

    def order(self) -> IntArray:
        """Return the entries from the hull upwards; figures draw in reverse, so that the lowest lie on top."""
        return np.lexsort((self.formation_energy_eV, self.e_above_hull_eV))

    def polymorph_rank(self) -> IntArray:
        """Return how many entries of the same composition lie lower, int64, shape (n,)."""
        rank, seen = np.zeros(len(self), dtype=np.int64), dict[bytes, int]()
        for i in self.order():
            key = np.round(self.fractions[i], 6).tobytes()
            rank[i] = seen.get(key, 0)
            seen[key] = rank[i] + 1
        return rank

    def tie_lines(self) -> list[tuple[int, int]]:
        """Return the pairs of stable entries that coexist: the edges of the lower hull; none for one element."""
        from scipy.spatial import ConvexHull as Qhull

        corners = np.flatnonzero(self.stable & (self.polymorph_rank() == 0))
        k = len(self.elements)
        if k == 1 or not all((self.fractions[corners] == unit).all(axis=1).any() for unit in np.eye(k)):
            return []
        points = np.column_stack([self.fractions[corners, 1:], self.formation_energy_eV[corners]])
        lid = [*np.full(k - 1, 1 / k), points[:, -1].max() + 1]
        solved = Qhull(np.vstack([points, lid]), qhull_options="Qt")
        lower = solved.simplices[solved.equations[:, -2] < UPRIGHT]
        edges = {(int(a), int(b)) for facet in lower for a, b in combinations(sorted(facet), 2)}
        return sorted((int(corners[a]), int(corners[b])) for a, b in edges)


@dataclass(frozen=True)
class EntryText:
    """What a figure says about an entry: its id, its formula, what it is for, and a label other than the formula."""

    entry_id: str
    formula: str
    role: Role = Role.CANDIDATE
    label: str = ""


def mixture_text(parts: Sequence[tuple[str, float]]) -> str:
    """Return phases and their fractions of atoms as text.

    >>> mixture_text([("Si", 0.25), ("Mg2Si", 0.75)])
    '0.75 Mg2Si + 0.25 Si'
    """
    ordered = sorted(parts, key=lambda part: (-part[1], part[0]))
    return " + ".join(formula if share > 1 - ON_HULL_eV else f"{share:.3g} {formula}" for formula, share in ordered)


def formula_pieces(text: str) -> list[tuple[str, bool]]:
    """Return the pieces of a text, and of each whether it is a number of a formula, to be set lower.

    >>> formula_pieces("Mg2Si (L12)")
    [('Mg', False), ('2', True), ('Si (L12)', False)]
    """
    pieces: list[tuple[str, bool]] = []
    end = 0
    for word in WORD.finditer(text):
        if not set(SYMBOL.findall(word.group())) <= ELEMENTS:
            continue
        for number in NUMBER.finditer(word.group()):
            start, stop = (word.start() + place for place in number.span())
            pieces += [(text[end:start], False), (text[start:stop], True)]
            end = stop
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]


def math_subscripts(text: str) -> str:
    r"""Return text with the numbers of its formulas lowered, for matplotlib.

    >>> math_subscripts("Mg2Si")
    'Mg$_{2}$Si'
    """
    plain = text.replace("\\", "/").replace("$", r"\$")
    return "".join(f"$_{{{piece}}}$" if low else piece for piece, low in formula_pieces(plain))


def html_subscripts(text: str) -> str:
    """Return text escaped for HTML with the numbers of its formulas lowered.

    >>> html_subscripts("Mg2Si <new>")
    'Mg<sub>2</sub>Si &lt;new&gt;'
    """
    return "".join(f"<sub>{piece}</sub>" if low else html.escape(piece) for piece, low in formula_pieces(text))
