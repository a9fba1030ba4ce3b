"""Goedecker-Teter-Hutter parameters written as a UPF 2.0.1 file, with the same bytes on every machine.

Quantum ESPRESSO 6.7 leaves the angular part of the non-local stress out when it reads these parameters from its own
``.gth`` format, so that cells relax wrongly. The same functions on a radial mesh take the general code path, whose
stress is right in every version (``docs/pseudopotentials.md`` gives the measurements).

A level of theory is named by the contents of its files, so the last printed digit must not depend on the processor's
or the C library's exponential function. All arithmetic is therefore decimal, with 34 digits of which 13 are printed:
the standard library's ``decimal`` rounds every operation correctly. One file takes about 50 ms.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hullworks.workflows.qe.pseudos.gth import GthChannel, GthParameters

CONVERTER_VERSION = 1
"""Part of every file; raise it when the bytes change on purpose."""

_CONTEXT = Context(prec=34, rounding=ROUND_HALF_EVEN)
_PI = Decimal("3.141592653589793238462643383279502884")
_X_MIN = Decimal(-7)
_STEP = Decimal("0.0125")
_R_MAX_BOHR = Decimal(100)
_PROJECTOR_RANGE = Decimal(9)
"""A projector ends at this many r_l: its Gaussian is exp(-40) there."""
_DENSITY_WIDTH = Decimal("2.5")
"""Width of the starting density in units of r_loc; it changes the number of SCF steps, never the result."""
_NEGLIGIBLE_EXPONENT = Decimal(150)
"""exp(-150) is below every printed digit and within the exponent range of Fortran's reals."""
_ERF_IS_ONE = Decimal(9)
_VALUES_PER_LINE = 4


@lru_cache(maxsize=32)
def gth_to_upf(parameters: GthParameters) -> bytes:
    """Return the UPF 2.0.1 file of one pseudopotential.

    Formulas: Hartwigsen, Goedecker, Hutter, Phys. Rev. B 58, 3641 (1998), equations 1 to 4, in Rydberg units.
    Equal parameters give equal bytes, whatever the machine and the Python version. The last ones are kept: a worker
    runs many structures of few elements, and the conversion takes most of what a small run costs beside pw.x.
    """
    with localcontext(_CONTEXT):
        mesh = radial_mesh(parameters.atomic_number)
        parts = [
            f'<UPF version="2.0.1">\n{_info(parameters)}{_header(parameters, len(mesh))}',
            _mesh_section(parameters, mesh),
            _array("PP_LOCAL", local_potential(parameters, mesh)),
            _nonlocal_section(parameters, mesh),
            "<PP_PSWFC>\n</PP_PSWFC>\n",
            _array("PP_RHOATOM", starting_density(parameters, mesh)),
            "</UPF>\n",
        ]
    return "".join(parts).encode("ascii")


def radial_mesh(atomic_number: int) -> list[Decimal]:
    """Return the radii exp(-7 + 0.0125 i) / Z in bohr up to 100 bohr; their number is odd, as Simpson's rule needs."""
    radius = _X_MIN.exp() / atomic_number
    growth = _STEP.exp()
    mesh: list[Decimal] = []
    while radius <= _R_MAX_BOHR or len(mesh) % 2 == 0:
        mesh.append(radius)
        radius *= growth
    return mesh


def local_potential(parameters: GthParameters, mesh: Sequence[Decimal]) -> list[Decimal]:
    """Return the local part in Ry on the mesh, shape (mesh,): screened core charge and a short-ranged polynomial."""
    r_loc = Decimal(str(parameters.local_radius_bohr))
    coefficients = [Decimal(str(c)) for c in parameters.local_hartree]
    charge = Decimal(parameters.valence)
    scale = 1 / (r_loc * Decimal(2).sqrt())
    potential = []
    for r in mesh:
        u = (r / r_loc) ** 2
        polynomial = Decimal(0)
        for c in reversed(coefficients):
            polynomial = polynomial * u + c
        potential.append(2 * (_gaussian(u / 2) * polynomial - charge * error_function(r * scale) / r))
    return potential


def projector(channel: GthChannel, index: int, mesh: Sequence[Decimal]) -> list[Decimal]:
    """Return r times the radial projector p_i^l(r), in bohr^(-1/2), shape (mesh,); zero beyond nine r_l.

    Args:
        channel: The angular momentum and its radius.
        index: Which projector, from 1.
        mesh: Radii in bohr.
    """
    radius = Decimal(str(channel.radius_bohr))
    power = channel.angular_momentum + 2 * index - 1
    # The norm holds r_l^(a) and Gamma(a) with a = l + (4 i - 1) / 2, a half integer.
    halves = 2 * channel.angular_momentum + 4 * index - 1
    norm = (2 / gamma_of_half_integer(halves)).sqrt() / radius.sqrt() ** halves
    end = _projector_end(channel, mesh)
    inside = (norm * r**power * _gaussian((r / radius) ** 2 / 2) for r in mesh[:end])
    return [*inside, *[Decimal(0)] * (len(mesh) - end)]


def starting_density(parameters: GthParameters, mesh: Sequence[Decimal]) -> list[Decimal]:
    """Return 4 pi r^2 times a Gaussian density that holds the valence charge, in electrons/bohr, shape (mesh,)."""
    width = _DENSITY_WIDTH * Decimal(str(parameters.local_radius_bohr))
    norm = 4 * parameters.valence / (_PI.sqrt() * width**3)
    return [norm * r * r * _gaussian((r / width) ** 2) for r in mesh]


def error_function(x: Decimal) -> Decimal:
    """Return erf(x) for x >= 0, from the series in which all terms are positive (Abramowitz and Stegun 7.1.6)."""
    if x > _ERF_IS_ONE:
        return Decimal(1)
    square = 2 * x * x
    term = total = x
    odd = 1
    while term > total * Decimal("1e-30"):
        odd += 2
        term = term * square / odd
        total += term
    return 2 / _PI.sqrt() * (-x * x).exp() * total


def gamma_of_half_integer(halves: int) -> Decimal:
    """Return Gamma(halves / 2) for odd ``halves`` from Gamma(1/2) = sqrt(pi)."""
    value = _PI.sqrt()
    for k in range(1, halves - 1, 2):
        value = value * k / 2
    return value


def _gaussian(exponent: Decimal) -> Decimal:
    return (-exponent).exp() if exponent < _NEGLIGIBLE_EXPONENT else Decimal(0)


def _projector_end(channel: GthChannel, mesh: Sequence[Decimal]) -> int:
    """Number of mesh points up to nine r_l, made odd for Simpson's rule."""
    cutoff = _PROJECTOR_RANGE * Decimal(str(channel.radius_bohr))
    inside = sum(1 for r in mesh if r <= cutoff)
    return inside + 1 - inside % 2


def _info(parameters: GthParameters) -> str:
    return (
        "<PP_INFO>\n"
        f"Goedecker-Teter-Hutter pseudopotential {parameters.name} for PBE, tabulated by HullWorks"
        f" (converter {CONVERTER_VERSION}).\n"
        "S. Goedecker, M. Teter, J. Hutter, Phys. Rev. B 54, 1703 (1996)\n"
        "C. Hartwigsen, S. Goedecker, J. Hutter, Phys. Rev. B 58, 3641 (1998)\n"
        "M. Krack, Theor. Chem. Acc. 114, 145 (2005)\n"
        "</PP_INFO>\n"
    )


def _header(parameters: GthParameters, mesh_size: int) -> str:
    channels = parameters.channels
    attributes: dict[str, object] = {
        "generated": "HullWorks",
        "author": "Goedecker Teter Hutter Hartwigsen Krack",
        "date": "2005",
        "comment": parameters.name,
        "element": parameters.element,
        "pseudo_type": "NC",
        "relativistic": "scalar",
        "is_ultrasoft": "F",
        "is_paw": "F",
        "is_coulomb": "F",
        "has_so": "F",
        "has_wfc": "F",
        "has_gipaw": "F",
        "core_correction": "F",
        "functional": "PBE",
        "z_valence": f"{parameters.valence}.0",
        "total_psenergy": "0.0",
        "wfc_cutoff": "0.0",
        "rho_cutoff": "0.0",
        "l_max": max((c.angular_momentum for c in channels), default=0),
        "l_local": -1,
        "mesh_size": mesh_size,
        "number_of_wfc": 0,
        "number_of_proj": sum(c.size for c in channels),
    }
    return "<PP_HEADER" + "".join(f'\n  {key}="{value}"' for key, value in attributes.items()) + "/>\n"


def _mesh_section(parameters: GthParameters, mesh: Sequence[Decimal]) -> str:
    attributes = (
        f'dx="{_STEP}" mesh="{len(mesh)}" xmin="{_X_MIN}.0" rmax="{mesh[-1]:.12E}" zmesh="{parameters.atomic_number}.0"'
    )
    spacing = [_STEP * r for r in mesh]
    return f"<PP_MESH {attributes}>\n{_array('PP_R', mesh)}{_array('PP_RAB', spacing)}</PP_MESH>\n"


def _nonlocal_section(parameters: GthParameters, mesh: Sequence[Decimal]) -> str:
    projectors = [(channel, i) for channel in parameters.channels for i in range(1, channel.size + 1)]
    if not projectors:
        return "<PP_NONLOCAL>\n</PP_NONLOCAL>\n"
    betas = []
    for number, (channel, i) in enumerate(projectors, start=1):
        end, momentum = _projector_end(channel, mesh), channel.angular_momentum
        extra = (
            f' index="{number}" label="{momentum}{i}" angular_momentum="{momentum}"'
            f' cutoff_radius_index="{end}" cutoff_radius="{mesh[end - 1]:.12E}"'
        )
        betas.append(_array(f"PP_BETA.{number}", projector(channel, i, mesh), extra))
    strengths = _array("PP_DIJ", list(_strengths(projectors)))
    return f"<PP_NONLOCAL>\n{''.join(betas)}{strengths}</PP_NONLOCAL>\n"


def _strengths(projectors: Sequence[tuple[GthChannel, int]]) -> Iterator[Decimal]:
    """Yield D_ij = 2 h_ij in Ry, row by row; projectors of unlike angular momentum do not couple."""
    for left, i in projectors:
        for right, j in projectors:
            same = left.angular_momentum == right.angular_momentum
            yield 2 * Decimal(str(left.matrix()[i - 1][j - 1])) if same else Decimal(0)


def _array(tag: str, values: Sequence[Decimal], extra: str = "") -> str:
    numbers = [f"{value:.12E}" if value else "0.0" for value in values]
    lines = (" ".join(numbers[i : i + _VALUES_PER_LINE]) for i in range(0, len(numbers), _VALUES_PER_LINE))
    head = f'<{tag} type="real" size="{len(values)}" columns="{_VALUES_PER_LINE}"{extra}>'
    return head + "\n" + "\n".join(lines) + f"\n</{tag}>\n"
