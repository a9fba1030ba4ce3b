"""Cures: what each changes, in which order they are asked, and where they stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.workflows.qe.attempts import Attempt, RunFolder, _looked_into
from hullworks.workflows.qe.evaluations import IonicStep
from hullworks.workflows.qe.handlers import CURES, Cure, NoCure, Rule, build_handlers, load_repairs
from hullworks.workflows.qe.inputs import PwInput, build_pw_input
from hullworks.workflows.qe.outcomes import QeBand, QeOutcome
from hullworks.workflows.qe.parser import QeRun
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import load_family
from hullworks.workflows.qe.restarts import RestartKind

HERE = Path()


@pytest.fixture
def asked() -> PwInput:
    """A relaxation of silicon."""
    structure = Structure(
        Lattice([[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]
    )
    return build_pw_input("vc-relax", structure, load_protocol("fast"), load_family("gth-pbe"))


@pytest.fixture
def reached(asked: PwInput) -> Structure:
    """A structure that a run has got to."""
    return Structure(Lattice(0.98 * asked.structure.lattice.matrix), ["Si", "Si"], asked.structure.frac_coords)


def ended(outcome: QeOutcome, **known: object) -> QeRun:
    """Return a run that ended so."""
    return QeRun(directory=HERE, outcome=outcome, **known)  # type: ignore[arg-type]


def cure(name: str, asked: PwInput) -> Cure:
    """Return a cure by its name, for a run that was asked so."""
    rule = next(rule for rule in load_repairs().rules if rule.name == name)
    return CURES[name](RunFolder(HERE, asked), rule)


def folder_after(asked: PwInput, run: QeRun, deadline: float | None = None) -> RunFolder:
    """Return a run folder whose first attempt has ended."""
    folder = RunFolder(HERE, asked, deadline)
    folder.attempts.append(Attempt(1, HERE, asked, run=run))
    folder._planned = None
    return folder


def test_every_cure_has_one_line_in_the_table() -> None:
    """The table orders and bounds all cures, each once."""
    repairs = load_repairs()
    assert sorted(rule.name for rule in repairs.rules) == sorted(CURES)
    assert all(rule.limit >= 1 for rule in repairs.rules)
    assert repairs.max_corrections >= 3


def test_every_cure_says_why_in_its_docstring() -> None:
    """Each names the physical reason and its source."""
    for kind in CURES.values():
        assert kind.__doc__ is not None
        assert "Source" in kind.__doc__


def test_no_cure_is_for_success_or_for_a_fatal_outcome() -> None:
    """Converged runs are left alone, and what can never succeed is not repeated."""
    treated = frozenset().union(*(kind.outcomes for kind in CURES.values()))
    assert QeOutcome.CONVERGED not in treated
    assert not [outcome for outcome in treated if outcome.fatal]
    assert QeOutcome.USER_STOP not in treated
    assert {outcome for outcome in treated if outcome.band is QeBand.ELECTRONIC}


def test_too_few_iterations_are_raised_once(asked: PwInput) -> None:
    """MoreIterations raises electron_maxstep, and has nothing to do when it is high."""
    handler = cure("MoreIterations", asked)
    remedy = handler.remedy(ended(QeOutcome.SCF_NOT_CONVERGED), asked.with_setting("ELECTRONS", "electron_maxstep", 5))
    assert remedy is not None
    assert remedy.pw_input.setting("ELECTRONS", "electron_maxstep") == 200
    assert remedy.actions == ("electron_maxstep: 5 -> 200",)
    assert handler.remedy(ended(QeOutcome.SCF_NOT_CONVERGED), remedy.pw_input) is None


def test_mixing_gets_gentler_down_to_a_least_share(asked: PwInput) -> None:
    """GentlerMixing halves mixing_beta until it would be useless."""
    handler, run = cure("GentlerMixing", asked), ended(QeOutcome.SCF_NOT_CONVERGED)
    betas = []
    while (remedy := handler.remedy(run, asked)) is not None:
        asked = remedy.pw_input
        betas.append(asked.setting("ELECTRONS", "mixing_beta"))
    assert betas == [0.2, 0.1, 0.05]


def test_local_screening_is_switched_on_once(asked: PwInput) -> None:
    """LocalScreening changes the mixing mode."""
    handler, run = cure("LocalScreening", asked), ended(QeOutcome.SCF_NOT_CONVERGED)
    remedy = handler.remedy(run, asked)
    assert remedy is not None
    assert remedy.pw_input.setting("ELECTRONS", "mixing_mode") == "local-TF"
    assert handler.remedy(run, remedy.pw_input) is None


def test_solvers_are_tried_in_turn(asked: PwInput) -> None:
    """OtherSolver goes from Davidson to conjugate gradients to ParO, and no further."""
    handler, run = cure("OtherSolver", asked), ended(QeOutcome.DIAGONALIZATION_FAILED)
    first = handler.remedy(run, asked)
    assert first is not None
    second = handler.remedy(run, first.pw_input)
    assert second is not None
    assert first.pw_input.setting("ELECTRONS", "diagonalization") == "cg"
    assert second.pw_input.setting("ELECTRONS", "diagonalization") == "paro"
    assert handler.remedy(run, second.pw_input) is None


def test_too_few_bands_are_left_to_pw_x(asked: PwInput) -> None:
    """PlainBands drops nbnd, and has nothing to do when it is not set."""
    handler, run = cure("PlainBands", asked), ended(QeOutcome.TOO_FEW_BANDS)
    remedy = handler.remedy(run, asked.with_setting("SYSTEM", "nbnd", 3))
    assert remedy is not None
    assert remedy.pw_input.setting("SYSTEM", "nbnd") is None
    assert handler.remedy(run, asked) is None


def test_fixed_occupations_are_smeared(asked: PwInput) -> None:
    """SmearOccupations brings the protocol's smearing back."""
    handler, run = cure("SmearOccupations", asked), ended(QeOutcome.SMEARING_NEEDED)
    fixed = asked.with_setting("SYSTEM", "occupations", "fixed").with_setting("SYSTEM", "degauss", None)
    remedy = handler.remedy(run, fixed)
    assert remedy is not None
    assert remedy.pw_input.setting("SYSTEM", "occupations") == "smearing"
    assert remedy.pw_input.setting("SYSTEM", "degauss") == asked.protocol.degauss_Ry
    assert handler.remedy(run, asked) is None


def test_bfgs_gets_shorter_steps_and_less_noise_from_the_last_structure(asked: PwInput, reached: Structure) -> None:
    """TightTrustRadius lowers the radius and conv_thr twice, then gives way."""
    handler = cure("TightTrustRadius", asked)
    run = ended(QeOutcome.BFGS_GAVE_UP, structure=reached)
    first = handler.remedy(run, asked)
    assert first is not None
    assert first.pw_input.structure == reached
    assert first.pw_input.setting("IONS", "trust_radius_ini") == pytest.approx(1e-3)
    assert first.pw_input.setting("IONS", "trust_radius_min") == pytest.approx(1e-4)
    assert first.pw_input.setting("ELECTRONS", "conv_thr") == pytest.approx(8e-11)
    second = handler.remedy(run, first.pw_input)
    assert second is not None
    assert second.pw_input.setting("IONS", "trust_radius_min") == pytest.approx(1e-5)
    assert handler.remedy(run, second.pw_input) is None


def test_damped_dynamics_follows_bfgs_in_trouble_only(asked: PwInput, reached: Structure) -> None:
    """DampedDynamics replaces BFGS, but not one that simply needs more steps."""
    handler = cure("DampedDynamics", asked)
    remedy = handler.remedy(ended(QeOutcome.BFGS_GAVE_UP, structure=reached), asked)
    assert remedy is not None
    assert remedy.pw_input.setting("IONS", "ion_dynamics") == "damp"
    assert remedy.pw_input.setting("CELL", "cell_dynamics") == "damp-w"
    assert handler.remedy(ended(QeOutcome.NSTEP_EXHAUSTED), asked) is None
    assert handler.remedy(ended(QeOutcome.NSTEP_EXHAUSTED, bfgs_resets=3), asked) is not None
    atoms_only = handler.remedy(ended(QeOutcome.BFGS_FAILED), replace(asked, calculation="relax"))
    assert atoms_only is not None
    assert "CELL" not in {item.namelist for item in atoms_only.pw_input.overrides}


def test_a_cell_that_outgrows_its_tables_gets_wider_ones(asked: PwInput, reached: Structure) -> None:
    """WiderCell doubles cell_factor and goes on from the last cell."""
    handler = cure("WiderCell", asked)
    run = ended(QeOutcome.VOLUME_CHANGE, structure=reached)
    remedy = handler.remedy(run, asked)
    assert remedy is not None
    assert remedy.pw_input.setting("CELL", "cell_factor") == 4.0
    assert remedy.pw_input.structure == reached
    again = handler.remedy(run, remedy.pw_input)
    assert again is not None
    assert again.pw_input.setting("CELL", "cell_factor") == 8.0


def test_spent_steps_go_on_from_the_last_evaluated_structure(asked: PwInput, reached: Structure) -> None:
    """MoreSteps needs a structure that was calculated."""
    handler = cure("MoreSteps", asked)
    remedy = handler.remedy(ended(QeOutcome.NSTEP_EXHAUSTED, structure=reached), asked)
    assert remedy is not None
    assert remedy.pw_input == asked.with_structure(reached)
    assert handler.remedy(ended(QeOutcome.NSTEP_EXHAUSTED), asked) is None


def test_fewer_steps_than_the_protocols_are_raised_to_it(asked: PwInput, reached: Structure) -> None:
    """With two or three steps an attempt BFGS never gets a history."""
    run = ended(QeOutcome.NSTEP_EXHAUSTED, structure=reached)
    remedy = cure("MoreSteps", asked).remedy(run, asked.with_setting("CONTROL", "nstep", 2))
    assert remedy is not None
    assert remedy.pw_input.setting("CONTROL", "nstep") == asked.protocol.nstep


def test_damped_dynamics_that_was_asked_for_gives_way_to_bfgs(asked: PwInput, reached: Structure) -> None:
    """But not the one that is a cure of a failed BFGS."""
    run = ended(QeOutcome.NSTEP_EXHAUSTED, structure=reached)
    damped = asked.with_setting("IONS", "ion_dynamics", "damp").with_setting("CELL", "cell_dynamics", "damp-w")
    remedy = cure("MoreSteps", damped).remedy(run, damped)
    assert remedy is not None
    assert remedy.pw_input.setting("IONS", "ion_dynamics") == "bfgs"
    assert remedy.pw_input.setting("CELL", "cell_dynamics") == "bfgs"
    cured = cure("MoreSteps", asked).remedy(run, damped)
    assert cured is not None
    assert cured.pw_input.setting("IONS", "ion_dynamics") == "damp"


def test_a_run_that_is_always_killed_in_its_first_cycle_is_given_up(asked: PwInput) -> None:
    """GoOn repeats kills as long as the run gets on; what kills the third attempt too will kill the next."""
    folder = folder_after(asked, ended(QeOutcome.INTERRUPTED))
    rule = next(rule for rule in load_repairs().rules if rule.name == "GoOn")
    killed = ended(QeOutcome.INTERRUPTED)
    for number in (2, 3):
        assert CURES["GoOn"](folder, rule).remedy(killed, asked) is not None
        folder.attempts.append(Attempt(number, HERE, asked, run=killed))
    assert CURES["GoOn"](folder, rule).remedy(killed, asked) is None
    folder.attempts[-1].run = ended(QeOutcome.INTERRUPTED, ionic_steps=(IonicStep(-1.0),))
    assert CURES["GoOn"](folder, rule).remedy(killed, asked) is not None


def test_an_empty_folder_is_not_asked_for_files(asked: PwInput) -> None:
    """FreshStart leaves out the caller's restart, and nothing else; a later restart of its own is still written."""
    told = asked.with_setting("CONTROL", "restart_mode", "restart").with_setting("ELECTRONS", "startingpot", "file")
    remedy = cure("FreshStart", told).remedy(ended(QeOutcome.CORRUPT_SAVE), told.with_setting("SYSTEM", "nbnd", 9))
    assert remedy is not None
    assert remedy.pw_input.setting("CONTROL", "restart_mode") == "from_scratch"
    assert remedy.pw_input.setting("ELECTRONS", "startingpot") is None
    assert remedy.pw_input.setting("SYSTEM", "nbnd") == 9
    assert replace(remedy.pw_input, restart=RestartKind.FULL).setting("CONTROL", "restart_mode") == "restart"


def test_what_never_began_is_launched_twice_more_and_a_crash_once(asked: PwInput) -> None:
    """OnceMore knows how often it has answered."""
    folder = folder_after(asked, ended(QeOutcome.NOT_STARTED))
    rule = next(rule for rule in load_repairs().rules if rule.name == "OnceMore")
    folder.note("OnceMore", ("the same once more",))
    again = CURES["OnceMore"](folder, rule)
    assert rule.limit == 2
    assert again.remedy(ended(QeOutcome.NOT_STARTED), asked) is not None
    assert again.remedy(ended(QeOutcome.SEGMENTATION_FAULT), asked) is None


@pytest.mark.parametrize(
    ("occupations", "gap_eV", "outcome"),
    [
        ("smearing", None, QeOutcome.CONVERGED),
        ("fixed", 0.5, QeOutcome.CONVERGED),
        ("fixed", None, QeOutcome.HIGHEST_BAND_OCCUPIED),
        ("fixed", 0.0, QeOutcome.SMEARING_NEEDED),
    ],
)
def test_fixed_occupations_must_show_a_gap(
    asked: PwInput, occupations: str, gap_eV: float | None, outcome: QeOutcome
) -> None:
    """pw.x fills a metal's lowest bands without a word; without an empty band nobody can tell."""
    told = asked.with_setting("SYSTEM", "occupations", occupations)
    seen = _looked_into(ended(QeOutcome.CONVERGED, gap_eV=gap_eV), Attempt(1, HERE, told))
    assert seen.outcome is outcome
    assert bool(seen.evidence) is not seen.succeeded


def test_a_walltime_stop_without_progress_is_not_repeated(asked: PwInput, reached: Structure) -> None:
    """GoOn repeats a killed run, but a stopped one only when it got somewhere."""
    handler = cure("GoOn", asked)
    assert handler.remedy(ended(QeOutcome.INTERRUPTED), asked) is not None
    assert handler.remedy(ended(QeOutcome.WALLTIME_STOP), asked) is None
    got_on = ended(QeOutcome.WALLTIME_STOP, structure=reached, ionic_steps=(IonicStep(-1.0),))
    remedy = handler.remedy(got_on, asked)
    assert remedy is not None
    assert remedy.pw_input.structure == reached


def test_a_static_calculation_never_changes_its_structure(asked: PwInput, reached: Structure) -> None:
    """Only relaxations go on from where they were."""
    remedy = cure("GoOn", asked).remedy(
        ended(QeOutcome.INTERRUPTED, structure=reached), replace(asked, calculation="scf")
    )
    assert remedy is not None
    assert remedy.pw_input.structure == asked.structure


def test_a_stuck_cycle_gets_no_more_iterations_but_gentler_mixing(asked: PwInput) -> None:
    """MoreIterations has nothing for it."""
    assert QeOutcome.SCF_STUCK not in CURES["MoreIterations"].outcomes
    remedy = cure("GentlerMixing", asked).remedy(ended(QeOutcome.SCF_STUCK), asked)
    assert remedy is not None
    assert remedy.pw_input.setting("ELECTRONS", "mixing_beta") == 0.2


def test_more_bands_grow_by_a_share_and_at_least_by_some(asked: PwInput) -> None:
    """MoreBands adds four to few and five per cent to many; after a wrong charge without its density."""
    handler = cure("MoreBands", asked)
    few = handler.remedy(ended(QeOutcome.HIGHEST_BAND_OCCUPIED, n_bands=8), asked)
    many = handler.remedy(ended(QeOutcome.CHARGE_WRONG, n_bands=200), asked)
    assert few is not None
    assert many is not None
    assert (few.pw_input.setting("SYSTEM", "nbnd"), few.kind) == (12, None)
    assert (many.pw_input.setting("SYSTEM", "nbnd"), many.kind) == (210, RestartKind.SCRATCH)
    assert handler.remedy(ended(QeOutcome.CHARGE_WRONG), asked) is None


def test_symmetry_is_found_anew_and_then_left_out(asked: PwInput, reached: Structure) -> None:
    """NewSymmetry starts from a structure that moved; where none did, or it failed again, it takes nosym."""
    handler = cure("NewSymmetry", asked)
    run = ended(QeOutcome.SYMMETRY_FAILED, structure=reached)
    first = handler.remedy(run, asked)
    assert first is not None
    assert first.pw_input == asked.with_structure(reached)
    second = handler.remedy(run, first.pw_input)
    assert second is not None
    assert second.pw_input.setting("SYSTEM", "nosym") is True
    assert handler.remedy(run, second.pw_input) is None


def test_less_memory_goes_from_pools_to_the_leanest_solver(asked: PwInput) -> None:
    """LessMemory takes one step at a time, and then gives way to the outcome."""
    handler, run = cure("LessMemory", asked), ended(QeOutcome.OUT_OF_MEMORY)
    handler.folder.pools = 4
    pools = handler.remedy(run, asked)
    assert pools is not None
    assert (pools.pools, pools.pw_input) == (1, asked)
    handler.folder.pools = 1
    workspace = handler.remedy(run, asked)
    assert workspace is not None
    assert workspace.pw_input.setting("ELECTRONS", "diago_david_ndim") == 2
    solver = handler.remedy(run, workspace.pw_input)
    assert solver is not None
    assert solver.pw_input.setting("ELECTRONS", "diagonalization") == "cg"
    assert handler.remedy(run, solver.pw_input) is None


def test_an_attempt_that_got_nowhere_goes_on_from_the_one_before(asked: PwInput, reached: Structure) -> None:
    """A failed restart has no structure of its own; the last good one is carried along."""
    folder = folder_after(asked, ended(QeOutcome.INTERRUPTED, structure=reached))
    folder.attempts.append(Attempt(2, HERE, asked, run=ended(QeOutcome.CORRUPT_SAVE)))
    next(item for item in build_handlers(folder) if item.check()).correct()
    assert folder._planned is not None
    assert folder._planned.structure == reached
    assert "structure: the last one calculated" in folder.corrections[-1].actions


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (QeOutcome.SCF_NOT_CONVERGED, "MoreIterations"),
        (QeOutcome.SCF_STUCK, "GentlerMixing"),
        (QeOutcome.S_MATRIX, "OtherSolver"),
        (QeOutcome.CHARGE_WRONG, "GentlerMixing"),
        (QeOutcome.G_VECTORS, "FreshStart"),
        (QeOutcome.TOO_MANY_POOLS, "FewerPools"),
        (QeOutcome.DIAGONALIZATION_FAILED, "OtherSolver"),
        (QeOutcome.FERMI_NOT_FOUND, "GentlerMixing"),
        (QeOutcome.BFGS_DE0S, "TightTrustRadius"),
        (QeOutcome.VOLUME_CHANGE, "WiderCell"),
        (QeOutcome.NSTEP_EXHAUSTED, "MoreSteps"),
        (QeOutcome.CORRUPT_SAVE, "FreshStart"),
        (QeOutcome.INTERRUPTED, "GoOn"),
        (QeOutcome.SEGMENTATION_FAULT, "OnceMore"),
    ],
)
def test_exactly_one_handler_answers_and_it_is_the_first_that_can(
    asked: PwInput, reached: Structure, outcome: QeOutcome, name: str
) -> None:
    """Custodian asks all handlers; once one has planned the next attempt, the others have nothing to say."""
    folder = folder_after(asked, ended(outcome, structure=reached))
    answered = []
    for handler in build_handlers(folder):
        if handler.check():
            answered.append(type(handler).__name__)
            handler.correct()
    assert answered == [name]
    assert folder.planned
    assert [item.handler for item in folder.corrections] == [name]


@pytest.mark.parametrize("outcome", [outcome for outcome in QeOutcome if outcome.fatal])
def test_a_fatal_outcome_ends_the_run_at_once(asked: PwInput, outcome: QeOutcome) -> None:
    """NoCure answers with the outcome's name and no action, on which custodian gives up."""
    folder = folder_after(asked, ended(outcome))
    handlers = [handler for handler in build_handlers(folder) if handler.check()]
    assert [type(handler) for handler in handlers] == [NoCure]
    answer = handlers[0].correct()
    assert answer["errors"] == [outcome.value]
    assert answer["actions"] == []
    assert not folder.planned


def test_no_handler_complains_about_success(asked: PwInput) -> None:
    """A converged run is left alone."""
    folder = folder_after(asked, ended(QeOutcome.CONVERGED))
    assert not [handler for handler in build_handlers(folder) if handler.check()]


def test_nothing_is_planned_when_the_allocation_is_over(asked: PwInput) -> None:
    """Without time for another attempt the run ends with its cause."""
    folder = folder_after(asked, ended(QeOutcome.INTERRUPTED), deadline=1.0)
    assert [type(handler) for handler in build_handlers(folder) if handler.check()] == [NoCure]


def test_the_log_of_custodian_names_handler_and_limit(asked: PwInput) -> None:
    """Handlers are written to custodian.json without the run that they hold."""
    handler = CURES["OnceMore"](RunFolder(HERE, asked), Rule("OnceMore", 3, MappingProxyType({})))
    assert handler.as_dict()["@class"] == "OnceMore"
    assert handler.as_dict()["limit"] == 3
    assert NoCure(RunFolder(HERE, asked)).as_dict()["@class"] == "NoCure"
