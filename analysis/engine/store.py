"""What a hull knows, as arrays: entries, their distinct compositions, and the chemical systems of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine.choice import compiled_is_used
from hullworks.analysis.engine.groups import Groups
from hullworks.analysis.engine.keys import (
    CODE_BITS,
    HALF,
    N_BITS,
    N_CODES,
    KeyTable,
    Table,
    composition_keys,
    element_keys,
    fraction_steps,
    spans,
    sums_of_rows,
    union,
    unique_keys,
)
from hullworks.errors import HullError

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array, Keys


FEW: Final = 8
"""Where more than one in so many compositions is asked for, walking through all entries is faster than looking up."""


@dataclass(frozen=True)
class Rows:
    """Compositions in compressed rows: element codes increase within a row.

    indptr: int64, (n + 1,); codes: uint8, (nnz,); fractions: float64, (nnz,), each row summing to 1.
    """

    indptr: Array
    codes: Array
    fractions: Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, rows: Array) -> Rows:
        """Return some of the rows."""
        sizes = np.diff(self.indptr)[rows]
        flat = spans(self.indptr[rows], sizes)
        return Rows(np.concatenate([[0], np.cumsum(sizes)]), self.codes[flat], self.fractions[flat])


@dataclass(frozen=True)
class Places:
    """Where in the flat columns some compositions of k elements stand."""

    flat: Table
    at: slice | Array
    k: int

    def get(self, name: str) -> Array:
        """Return a column there, (n, k)."""
        values: Array = self.flat[name][self.at].reshape(-1, self.k)
        return values

    def put(self, **columns: Array) -> None:
        """Set columns there, (n, k)."""
        for name, values in columns.items():
            self.flat[name][self.at] = values.reshape(-1)


class Store:
    """Entries, compositions and systems; numbers of rows are their names for one another.

    entries: comp, energy in eV/atom, active.
    comps: key; sys; k, the number of elements; off, where its k places in ``flat`` begin; ground, its lowest active
        entry or -1; shift, the energy of its frame; e, the energy of its ground entry less shift, inf without one;
        h, the hull of all other compositions there, NaN while not solved; vertex, whether it is on the hull.
    flat: for each composition k places: x, atomic fractions; mu, chemical potentials that prove h from below;
        basis and lam, the compositions and fractions of atoms that prove it from above.
    systems: key, k, off, lo and hi, the mask of their elements, vstart and vcount, their own vertices in ``vertices``,
        listed, whether they are in the vertex table.
    flat_codes: element codes of the systems, one after the other.
    pairs: every pair of elements, also of equals, of every system, made when it is first needed.

    Energies are kept relative to a frame, one energy per element and for good (that of its first reference), so that
    total energies of thousands of eV cost no digits, and a new reference is a phase like any other.
    """

    def __init__(self) -> None:
        self.entries = Table(comp=np.int32, energy=np.float64, active=np.bool_)
        self.comps = Table(
            key=np.uint64, sys=np.int32, k=np.uint8, off=np.int64, ground=np.int32, shift=np.float64,
            e=np.float64, h=np.float64, vertex=np.bool_,
        )  # fmt: skip
        self.flat = Table(x=np.float64, mu=np.float64, lam=np.float64, basis=np.int32)
        self.systems = Table(
            key=np.uint64,
            k=np.uint8,
            off=np.int64,
            lo=np.uint64,
            hi=np.uint64,
            vstart=np.int64,
            vcount=np.int32,
            listed=np.bool_,
        )
        self.flat_codes = Table(code=np.uint8, sys=np.int32)
        self.vertices = Table(comp=np.int32)
        # Most systems have no vertex of their own; the table of those that have had one stays in the cache.
        self.comp_table, self.system_table, self.vertex_table = KeyTable(), KeyTable(), KeyTable()
        self.element_comp = np.full(N_CODES, -1, dtype=np.int32)
        self.frame = np.full(N_CODES, np.nan)
        self.salt = 0
        # Labels of two bytes: they are sorted by radix.
        self.pairs = Table(label=np.uint16, sys=np.int32)
        self._paired = 0
        self._by_system, self._by_pair, self._by_comp = Groups(), Groups(), Groups()

    # ------------------------------------------------------------------------------------------------ what is asked
    def system_codes(self, systems: Array, k: int) -> Array:
        """Return the element codes of systems of k elements, (s, k)."""
        offsets = self.systems["off"][systems]
        codes: Array = self.flat_codes["code"][offsets[:, None] + np.arange(k)]
        return codes

    def places(self, comps: Array, k: int) -> Places:
        """Return where some compositions of k elements stand in the flat columns."""
        offsets = self.comps["off"][comps]
        if len(comps) and (np.diff(offsets) == k).all():  # as those that came together do: no need to name each place
            return Places(self.flat, slice(int(offsets[0]), int(offsets[-1]) + k), k)
        return Places(self.flat, (offsets[:, None] + np.arange(k)).reshape(-1), k)

    def elements_there(self) -> Array:
        """Return, per element code, whether the element has an active entry."""
        comps = self.element_comp
        there = comps >= 0
        there[there] = self.comps["ground"][comps[there]] >= 0
        return there

    def elements_occurring(self) -> Array:
        """Return, per element code, whether the element is in any active entry."""
        systems = np.zeros(len(self.systems), dtype=bool)
        systems[self.comps["sys"][self.comps["ground"] >= 0]] = True
        occurring = np.zeros(N_CODES, dtype=bool)
        occurring[self.flat_codes["code"][systems[self.flat_codes["sys"]]]] = True
        return occurring

    def element_energies(self) -> Array:
        """Return, per element code, the energy of its reference in the frame, eV/atom; inf without one."""
        energies = np.full(N_CODES, np.inf)
        known = self.element_comp >= 0
        energies[known] = self.comps["e"][self.element_comp[known]]
        return energies

    def references(self) -> Array:
        """Return, per element code, the energy of its reference in eV/atom; NaN without one."""
        references = np.full(N_CODES, np.nan)
        known = self.elements_there()
        ground = self.comps["ground"][self.element_comp[known]]
        references[known] = self.entries["energy"][ground]
        return references

    def complete(self, systems: Array) -> Array:
        """Tell of systems whether every element has a reference."""
        return ~self.systems_with(np.flatnonzero(~self.elements_there()), systems)

    def systems_with(self, codes: Array, systems: Array | None = None) -> Array:
        """Tell of systems, by default of all, whether they hold one of some elements."""
        at = slice(None) if systems is None else systems
        lo, hi = masks_of(codes)
        held: Array = ((self.systems["lo"][at] & lo) | (self.systems["hi"][at] & hi)) != 0
        return held

    def members(self, systems: Array) -> tuple[Array, Array]:
        """Return the compositions of some systems: (compositions, place in ``systems`` of each)."""
        return self._by_system.of(systems, self.comps["sys"], len(self.systems))

    def others_of(self, systems: Array) -> tuple[Array, Array]:
        """Return the own compositions of some systems that have an entry and are not on the hull, by place."""
        members, place = self.members(systems)
        kept = ~self.comps["vertex"][members] & (self.comps["ground"][members] >= 0)
        members, place = members[kept], place[kept]
        order = np.argsort(place, kind="stable")
        return members[order], place[order]

    def entries_of(self, comps: Array) -> tuple[Array, Array]:
        """Return the entries of some distinct compositions, increasing: (entries, place in ``comps`` of each)."""
        if len(comps) * FEW < len(self.comps):
            entries, place = self._by_comp.of(comps, self.entries["comp"], len(self.comps))
            order = np.argsort(entries)
            return entries[order].astype(np.int64), place[order]
        where = np.full(len(self.comps), -1, dtype=np.int32)
        where[comps] = np.arange(len(comps))
        place = where[self.entries["comp"]]
        entries = np.flatnonzero(place >= 0)
        return entries, place[entries]

    def supersystems(self, systems: Array) -> tuple[Array, Array]:
        """Return the systems that contain some systems, these included: (systems, place in ``systems`` of each)."""
        if not len(systems):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        distinct, which = np.unique(systems, return_inverse=True)
        labels = self._rarest_pairs(distinct)
        flat, at = self._by_pair.of(labels, self.pairs["label"], N_CODES * N_CODES)
        found = self.pairs["sys"][flat]
        lo, hi = self.systems["lo"], self.systems["hi"]
        own = distinct[at]
        inside = ((lo[own] & ~lo[found]) | (hi[own] & ~hi[found])) == 0
        found, at = found[inside], at[inside]
        order = np.argsort(at, kind="stable")
        counts = np.bincount(at, minlength=len(distinct))
        starts = np.cumsum(counts) - counts
        return found[order][spans(starts[which], counts[which])], np.repeat(np.arange(len(systems)), counts[which])

    def _rarest_pairs(self, systems: Array) -> Array:
        """Return, of each system, the pair of its elements (of equals for one) that is in the fewest systems."""
        self._note_pairs()
        often = self._by_pair.counts(self.pairs["label"], N_CODES * N_CODES)
        labels = np.zeros(len(systems), dtype=np.int64)
        sizes = self.systems["k"][systems]
        for k in np.unique(sizes):
            at = np.flatnonzero(sizes == k)
            pairs = pair_labels(self.system_codes(systems[at], int(k)))
            labels[at] = pairs[np.arange(len(at)), often[pairs].argmin(axis=1)]
        return labels

    def _note_pairs(self) -> None:
        """Bring the table of pairs up to date: it is made when it is first asked for."""
        new = np.arange(self._paired, len(self.systems))
        self._paired = len(self.systems)
        sizes = self.systems["k"][new]
        for k in np.unique(sizes):
            same = new[sizes == k]
            labels = pair_labels(self.system_codes(same, int(k)))
            self.pairs.extend(labels.size, label=labels.reshape(-1), sys=np.repeat(same, labels.shape[1]))

    # -------------------------------------------------------------------------------------------- what is registered
    def register(self, rows: Rows, energies: Array) -> Array:
        """Append entries with their compositions and systems; return their numbers. Grounds are not set."""
        comps = self._register_comps(rows)
        first = len(self.entries)
        self.entries.extend(len(rows), comp=comps, energy=energies, active=True)
        return np.arange(first, len(self.entries))

    def _register_comps(self, rows: Rows) -> Array:
        """Return the compositions of the rows, new ones appended by number of elements and system."""
        while True:
            keys, system_keys = keys_of_rows(rows, self.salt)
            distinct, first, which = unique_keys(keys)
            found = self.comp_table.find(distinct).astype(np.int64)
            if self._all_agree(rows, first, which, found):
                break
            self._salt_anew()
        new = np.flatnonzero(found < 0)
        if len(new):
            sizes = np.diff(rows.indptr)[first[new]].astype(np.uint64)
            # By number of elements, then by system: which order systems have among themselves does not matter.
            new = new[
                np.argsort(sizes << np.uint64(N_BITS - CODE_BITS) | system_keys[first[new]] >> np.uint64(CODE_BITS))
            ]
            at = first[new]
            found[new] = self._append_comps(distinct[new], system_keys[at], rows.of(at))
        return found[which]

    def _all_agree(self, rows: Rows, first: Array, which: Array, found: Array) -> bool:
        """Tell whether rows of equal keys are equal compositions, and equal to the known ones."""
        known = np.flatnonzero(found >= 0)
        if len(known) and not self._same(rows.of(first[known]), found[known]).all():
            return False
        other = np.ones(len(rows), dtype=bool)
        other[first] = False
        repeated = np.flatnonzero(other)
        mine, heads = rows.of(repeated), rows.of(first[which[repeated]])
        return (
            np.array_equal(mine.indptr, heads.indptr)
            and np.array_equal(mine.codes, heads.codes)
            and np.array_equal(fraction_steps(mine.fractions), fraction_steps(heads.fractions))
        )

    def _same(self, rows: Rows, comps: Array) -> Array:
        """Tell of each row whether it is that composition."""
        sizes = np.diff(rows.indptr)
        same: Array = sizes == self.comps["k"][comps]
        inside = rows if same.all() else rows.of(np.flatnonzero(same))
        if not len(inside):
            return same
        which = comps[same]
        sizes = np.diff(inside.indptr)
        codes = self.flat_codes["code"][spans(self.systems["off"][self.comps["sys"][which]], sizes)]
        x = self.flat["x"][spans(self.comps["off"][which], sizes)]
        differs = (codes != inside.codes) | (fraction_steps(x) != fraction_steps(inside.fractions))
        same[same] = ~np.logical_or.reduceat(differs, inside.indptr[:-1])
        return same

    def _salt_anew(self) -> None:
        """Take other keys, since two compositions had the same, as once in two million sets of four million."""
        self.salt += 1
        every = np.arange(len(self.comps))
        keys, _ = keys_of_rows(self.rows_of(every), self.salt)
        self.comps["key"][:] = keys
        self.comp_table = KeyTable()
        self.comp_table.add(keys, every)

    def rows_of(self, comps: Array) -> Rows:
        """Return compositions as rows."""
        sizes = self.comps["k"][comps].astype(np.int64)
        codes = self.flat_codes["code"][spans(self.systems["off"][self.comps["sys"][comps]], sizes)]
        x = self.flat["x"][spans(self.comps["off"][comps], sizes)]
        return Rows(np.concatenate([[0], np.cumsum(sizes)]), codes, x)

    def fractions_in(self, codes: Array, phases: Array) -> Array:
        """Return the atomic fractions of one phase per row in the order of the row's elements, (n, k).

        Args:
            codes: Element codes of the rows, increasing, (n, k); each phase lies within its row's.
            phases: Compositions, (n,).
        """
        rows = self.rows_of(phases)
        which = np.repeat(np.arange(len(phases)), np.diff(rows.indptr))
        x = np.zeros(codes.shape)
        x[which, (codes[which] < rows.codes[:, None]).sum(axis=1)] = rows.fractions
        return x

    def _append_comps(self, keys: Keys, system_keys: Keys, rows: Rows) -> Array:
        """Append new compositions, which are ordered by number of elements and system; return their numbers."""
        first, flat_first = len(self.comps), len(self.flat)
        numbers = np.arange(first, first + len(rows))
        systems = self.system_table.find(system_keys)
        if (systems < 0).any():
            self._append_systems(system_keys, rows, systems < 0)
            systems = self.system_table.find(system_keys)
        sizes = np.diff(rows.indptr)
        listed = spans(self.systems["off"][systems], sizes)
        if (
            not np.array_equal(self.systems["k"][systems], sizes)
            or (self.flat_codes["code"][listed] != rows.codes).any()
        ):
            raise HullError("two chemical systems have the same 64-bit key", next_step="Please report it.")
        self.flat.extend(len(rows.codes), x=rows.fractions, basis=-1)
        self.comps.extend(
            len(rows), key=keys, sys=systems, k=np.diff(rows.indptr), off=flat_first + rows.indptr[:-1], ground=-1,
            shift=sums_of_rows(rows.fractions * self.known_frame()[rows.codes], rows.indptr), e=np.inf, h=np.nan,
        )  # fmt: skip
        self.comp_table.add(keys, numbers)
        pure = np.flatnonzero(np.diff(rows.indptr) == 1)
        self.element_comp[rows.codes[rows.indptr[pure]]] = numbers[pure]
        return numbers

    def _append_systems(self, keys: Keys, rows: Rows, wanted: Array) -> None:
        """Append the systems of the wanted rows, in their order."""
        at = np.flatnonzero(wanted)
        _, heads, _ = unique_keys(keys[at])
        heads = at[np.sort(heads)]
        own = rows.of(heads)
        first, first_code = len(self.systems), len(self.flat_codes)
        lo, hi = masks_of_rows(own)
        numbers = np.arange(first, first + len(own))
        self.flat_codes.extend(len(own.codes), code=own.codes, sys=np.repeat(numbers, np.diff(own.indptr)))
        self.systems.extend(
            len(own), key=keys[heads], k=np.diff(own.indptr), off=first_code + own.indptr[:-1], lo=lo, hi=hi
        )
        self.system_table.add(keys[heads], numbers)

    def known_frame(self) -> Array:
        """Return the frame's energy per element code, 0 for elements that never had a reference."""
        frame: Array = np.nan_to_num(self.frame)
        return frame

    def set_frame(self, codes: Array, energies: Array) -> None:
        """Fix the frame's energy of elements that get their first reference."""
        self.frame[codes] = energies
        comps = np.flatnonzero(self.systems_with(codes)[self.comps["sys"]])
        rows = self.rows_of(comps)
        self.comps["shift"][comps] = sums_of_rows(rows.fractions * self.known_frame()[rows.codes], rows.indptr)
        self._set_energies(comps)

    def set_grounds(self, comps: Array) -> None:
        """Find the lowest active entry of each of some distinct compositions anew; the first of those that tie."""
        entries, own = self.entries_of(comps)
        kept = self.entries["active"][entries]
        entries, own = entries[kept], own[kept]
        energies = self.entries["energy"][entries]
        lowest = np.full(len(comps), np.inf)
        np.minimum.at(lowest, own, energies)
        ties = np.flatnonzero(energies == lowest[own])[::-1]
        ground = np.full(len(comps), -1, dtype=np.int32)
        ground[own[ties]] = entries[ties]
        self.comps["ground"][comps] = ground
        self._set_energies(comps)

    def _set_energies(self, comps: Array) -> None:
        ground = self.comps["ground"][comps]
        energies = np.full(len(comps), np.inf)
        there = ground >= 0
        energies[there] = self.entries["energy"][ground[there]] - self.comps["shift"][comps[there]]
        self.comps["e"][comps] = energies

    def set_vertices(self, comps: Array) -> None:
        """Write down the own vertices of all systems of some compositions anew, from the compositions' ``vertex``."""
        systems = union([self.comps["sys"][comps]])
        members, _ = self.members(systems)
        own = members[self.comps["vertex"][members]]
        own = own[np.argsort(self.comps["sys"][own], kind="stable")]
        counts = np.bincount(np.searchsorted(systems, self.comps["sys"][own]), minlength=len(systems))
        self.systems["vstart"][systems] = len(self.vertices) + np.cumsum(counts) - counts
        self.systems["vcount"][systems] = counts
        self.vertices.extend(len(own), comp=own)
        new = systems[(counts > 0) & ~self.systems["listed"][systems]]
        self.systems["listed"][new] = True
        self.vertex_table.add(self.systems["key"][new], new)
        if len(self.vertices) > 2 * int(self.systems["vcount"].sum()) + 1000:
            self._compact_vertices()

    def _compact_vertices(self) -> None:
        counts = self.systems["vcount"].astype(np.int64)
        kept = self.vertices["comp"][spans(self.systems["vstart"], counts)]
        self.systems["vstart"][:] = np.cumsum(counts) - counts
        self.vertices = Table(comp=np.int32)
        self.vertices.extend(len(kept), comp=kept)


def masks_of(codes: Array) -> tuple[np.uint64, np.uint64]:
    """Return the two halves of the mask of some element codes."""
    if not len(codes):
        return np.uint64(0), np.uint64(0)
    lo, hi = masks_of_rows(Rows(np.array([0, len(codes)]), codes, np.zeros(0)))
    return np.uint64(lo[0]), np.uint64(hi[0])


def masks_of_rows(rows: Rows) -> tuple[Array, Array]:
    """Return the two halves of the mask of elements of each row."""
    bits = np.uint64(1) << (rows.codes.astype(np.uint64) & np.uint64(HALF - 1))
    high = rows.codes >= HALF
    none = np.uint64(0)
    return sums_of_rows(np.where(high, none, bits), rows.indptr), sums_of_rows(np.where(high, bits, none), rows.indptr)


def pair_labels(codes: Array) -> Array:
    """Return labels of all pairs of elements, those of one with itself included, of systems of k elements, (s, m)."""
    first, second = np.triu_indices(codes.shape[1])
    labels: Array = codes[:, first].astype(np.int64) * N_CODES + codes[:, second]
    return labels


def keys_of_rows(rows: Rows, salt: int) -> tuple[Keys, Keys]:
    """Return the keys of the rows' compositions and those of their systems."""
    if compiled_is_used():
        from hullworks.analysis.engine import compiled

        of_comps, of_systems = compiled.keys_of_rows(rows.indptr, rows.codes, rows.fractions, salt, element_keys())
        return of_comps, of_systems
    keys = composition_keys(rows.codes, fraction_steps(rows.fractions), rows.indptr, salt)
    return keys, sums_of_rows(element_keys()[rows.codes], rows.indptr)
