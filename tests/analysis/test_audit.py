"""The audit finds whatever was changed behind the writer's back, and the repair puts it right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.audit import audit_level, repair_level
from hullworks.analysis.stability import retract, update_all, update_level
from hullworks.documents import HullEvent, HullVersion, Level, StoredVerdict
from hullworks.errors import HullError, StateError
from hullworks.leases import lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.analysis.conftest import Lab

CHECKS = ["events", "counts", "certificates", "verdicts", "linear programs", "versions", "digests"]


@pytest.fixture
def sound(lab: Lab) -> Lab:
    """A level with three versions, one of them a retraction."""
    lab.enter_all()
    update_all()
    lab.enter("Mg5Si", -1.4)
    update_all()
    retract("entry-Mg3Si-fast", "wrong")
    return lab


def test_a_sound_level_passes_every_check(sound: Lab) -> None:
    """The report says what was checked, and is plain JSON; it changes nothing."""
    before = [verdict.to_mongo() for verdict in StoredVerdict.objects]
    report = audit_level(sound.key, 3, seed=1)
    assert report.ok
    assert [check.name for check in report.checks] == CHECKS
    assert all(check.checked for check in report.checks)
    assert json.loads(json.dumps(report.as_dict()))["version"] == 8
    assert [verdict.to_mongo() for verdict in StoredVerdict.objects] == before
    empty = audit_level(sound.other)
    assert empty.ok
    assert empty.version == 0


def _energy_above_hull() -> None:
    StoredVerdict.objects(entry_id="entry-MgSi-fast").update(set__e_above_hull_eV_per_atom=0.01)


def _verdict_gone() -> None:
    StoredVerdict.objects(entry_id="entry-MgSi-fast").delete()


def _end_moved() -> None:
    StoredVerdict.objects(entry_id="entry-Mg3Si-fast", until=8).update(set__until=2**62)


def _stray() -> None:
    document = StoredVerdict.collection().find_one({"entry_id": "entry-MgSi-fast"}, {"_id": 0})
    assert document is not None
    StoredVerdict.collection().insert_one({**document, "entry_id": "entry-stray"})


REPAIRABLE = {_energy_above_hull: "verdicts", _verdict_gone: "counts", _end_moved: "counts", _stray: "counts"}


@pytest.mark.parametrize("damage", REPAIRABLE)
def test_a_damaged_verdict_is_found_and_repaired(sound: Lab, damage: Callable[[], None]) -> None:
    """Each kind of damage by at least the check that is meant for it, and by the digest of its version."""
    before = sorted((v.entry_id, v.since, v.until, v.e_above_hull_eV_per_atom) for v in StoredVerdict.objects)
    damage()
    report = audit_level(sound.key, stop=True)
    failed = {check.name for check in report.checks if check.problems}
    assert failed >= {REPAIRABLE[damage], "digests"}
    with pytest.raises(HullError, match="audit --repair"):
        update_level(sound.key)
    assert repair_level(sound.key)["repaired"] >= 1
    assert audit_level(sound.key).ok
    after = sorted((v.entry_id, v.since, v.until, v.e_above_hull_eV_per_atom) for v in StoredVerdict.objects)
    assert after == before
    assert not update_level(sound.key)


def _event_gone() -> None:
    HullEvent.objects(sequence=3).delete()


def _event_changed() -> None:
    HullEvent.objects(entry_id="entry-Mg2Si-fast").update(set__subject__energy_eV_per_atom=-2.3)


def _version_gone() -> None:
    HullVersion.objects(version=7).delete()


TRUTH = {_event_gone: "events", _event_changed: "verdicts", _version_gone: "versions"}


@pytest.mark.parametrize("damage", TRUTH)
def test_damaged_events_are_found_and_cannot_be_repaired(sound: Lab, damage: Callable[[], None]) -> None:
    """Events and versions are the truth: only a backup helps, and what is published stays as it is."""
    damage()
    report = audit_level(sound.key)
    assert TRUTH[damage] in {check.name for check in report.checks if check.problems}
    with pytest.raises(HullError, match=r"backup|audit"):
        repair_level(sound.key)
    assert Level.objects.get(key=sound.key).published == 8
    assert StoredVerdict.objects(entry_id="entry-MgSi-fast").count() >= 1


def test_a_repair_waits_for_the_writer(sound: Lab) -> None:
    """One at a time."""
    with lease(f"stability:{sound.key}", 60), pytest.raises(StateError, match="another process is writing"):
        repair_level(sound.key)
