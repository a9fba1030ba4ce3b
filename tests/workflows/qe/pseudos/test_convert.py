"""The converter from Goedecker-Teter-Hutter parameters to UPF files."""

from __future__ import annotations

import decimal
import hashlib
import json
import math
import re
from decimal import Decimal
from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray

from hullworks.workflows.qe.pseudos import (
    GthParameters,
    gth_elements,
    gth_parameters,
    gth_to_upf,
    gth_valences,
    read_upf_header,
)
from hullworks.workflows.qe.pseudos.convert import error_function, gamma_of_half_integer

SAMPLE = ["H", "Li", "O", "Mg", "Si", "Cu", "Ge", "Sn", "Ba", "Ce", "U"]
FloatArray = NDArray[np.float64]


def array(upf: str, tag: str) -> FloatArray:
    """All numbers of one section."""
    match = re.search(rf"<{re.escape(tag)}\b[^>]*>(.*?)</{re.escape(tag)}>", upf, re.DOTALL)
    assert match is not None
    return np.array([float(word) for word in match[1].split()])


def integral(upf: str, values: FloatArray) -> float:
    """Simpson's rule on the file's own logarithmic mesh, as pw.x integrates."""
    spacing = array(upf, "PP_RAB")
    weights = np.full(len(values), 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return float(np.sum(weights * values * spacing) / 3.0)


def upf_of(element: str) -> tuple[GthParameters, str]:
    """The default parameters of an element, and their file."""
    parameters = gth_parameters(element)
    return parameters, gth_to_upf(parameters).decode("ascii")


def test_equal_parameters_give_equal_bytes() -> None:
    """Two conversions give the same bytes, even where somebody has changed the decimal arithmetic of the thread."""
    first = gth_to_upf(gth_parameters("Mg"))
    with decimal.localcontext(decimal.Context(prec=5, rounding=decimal.ROUND_UP)):
        second = gth_to_upf(gth_parameters("Mg"))
    assert first == second


@pytest.mark.parametrize(("element", "q"), [(e, q) for e in gth_elements()[::5] for q in gth_valences(e)])
def test_the_bytes_are_the_pinned_ones(element: str, q: int) -> None:
    """A file has the digest that is shipped, so that levels of theory have the same name on all machines."""
    pinned = json.loads(files("hullworks.workflows.qe.pseudos").joinpath("gth_pbe_sha256.json").read_text())
    parameters = gth_parameters(element, q)
    assert hashlib.sha256(gth_to_upf(parameters)).hexdigest() == pinned[parameters.name]


@pytest.mark.parametrize("element", SAMPLE)
def test_the_header_says_what_the_file_is(element: str) -> None:
    """The header names element, PBE, norm-conserving and the valence, and the file passes the check of user files."""
    parameters, upf = upf_of(element)
    header = read_upf_header(upf.encode())
    assert (header.element, header.functional, header.kind) == (element, "PBE", "NC")
    assert header.z_valence == parameters.valence
    assert header.mesh_size % 2 == 1


@pytest.mark.parametrize("element", SAMPLE)
def test_projectors_are_normalised(element: str) -> None:
    """The integral of (r p)^2 is 1 for every projector, so that D alone carries the strength."""
    parameters, upf = upf_of(element)
    count = sum(channel.size for channel in parameters.channels)
    norms = [integral(upf, array(upf, f"PP_BETA.{i}") ** 2) for i in range(1, count + 1)]
    assert norms == pytest.approx([1.0] * count, abs=1e-8)


@pytest.mark.parametrize("element", SAMPLE)
def test_the_starting_density_holds_the_valence(element: str) -> None:
    """The starting density integrates to the valence charge."""
    parameters, upf = upf_of(element)
    assert integral(upf, array(upf, "PP_RHOATOM")) == pytest.approx(parameters.valence, abs=1e-8)


@pytest.mark.parametrize("element", SAMPLE)
def test_the_local_part_is_the_formula(element: str) -> None:
    """The local part equals its formula in binary arithmetic to 12 digits, and is -2 q / r far out."""
    parameters, upf = upf_of(element)
    r, local = array(upf, "PP_R"), array(upf, "PP_LOCAL")
    u = (r / parameters.local_radius_bohr) ** 2
    coulomb = [math.erf(x / (math.sqrt(2.0) * parameters.local_radius_bohr)) for x in r]
    short = np.exp(-u / 2.0) * sum(c * u**i for i, c in enumerate(parameters.local_hartree))
    expected = 2.0 * (short - parameters.valence / r * np.array(coulomb))
    assert local == pytest.approx(expected, rel=1e-11, abs=1e-10)
    assert local[-1] * r[-1] == pytest.approx(-2.0 * parameters.valence, rel=1e-12)


@pytest.mark.parametrize("element", ["Si", "Ge", "Ce"])
def test_projectors_are_the_formula(element: str) -> None:
    """Each projector equals its formula in binary arithmetic, and is zero beyond nine radii."""
    parameters, upf = upf_of(element)
    r, number = array(upf, "PP_R"), 0
    for channel in parameters.channels:
        for i in range(1, channel.size + 1):
            number += 1
            a = channel.angular_momentum + (4 * i - 1) / 2
            norm = math.sqrt(2.0 / math.gamma(a)) / channel.radius_bohr**a
            power = channel.angular_momentum + 2 * i - 1
            expected = norm * r**power * np.exp(-((r / channel.radius_bohr) ** 2) / 2.0)
            beta = array(upf, f"PP_BETA.{number}")
            assert beta == pytest.approx(expected, rel=1e-10, abs=1e-12)
            assert not np.any(beta[r > 9.2 * channel.radius_bohr])


def test_strengths_are_block_diagonal() -> None:
    """D is twice h within one angular momentum and zero between two."""
    parameters, upf = upf_of("Si")
    s, p = parameters.channels
    expected = np.zeros((3, 3))
    expected[:2, :2], expected[2, 2] = 2.0 * np.array(s.matrix()), 2.0 * p.h_hartree[0]
    assert array(upf, "PP_DIJ").reshape(3, 3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("x", ["0", "1e-6", "0.1", "1", "3", "6", "9", "9.5", "200"])
def test_the_error_function(x: str) -> None:
    """The decimal error function equals the binary one."""
    assert float(error_function(Decimal(x))) == pytest.approx(math.erf(float(x)), rel=1e-14)


@pytest.mark.parametrize("halves", [1, 3, 5, 7, 11, 17])
def test_gamma_of_half_integers(halves: int) -> None:
    """Gamma at half integers equals the binary one."""
    assert float(gamma_of_half_integer(halves)) == pytest.approx(math.gamma(halves / 2), rel=1e-14)
