"""Run folders at rest."""

from __future__ import annotations

import gzip
import subprocess
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import RunError
from hullworks.workflows.qe.archive import CHECKSUMS_NAME, archive_run, attempt_folders, verify_archive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """A folder as a run leaves it: two attempts, scratch, pseudopotentials, and a file of the launcher."""
    for number in (1, 2):
        attempt = tmp_path / f"attempt-{number}"
        (attempt / "out" / "pwscf.save").mkdir(parents=True)
        (attempt / "out" / "pwscf.save" / "wfc1.dat").write_bytes(b"w" * 1000)
        (attempt / "out" / "pwscf.xml").write_text("<xml/>" * 100, encoding="utf-8")
        (attempt / "pw.in").write_text("&CONTROL\n/\n", encoding="utf-8")
        (attempt / "pw.out").write_text("iteration\n" * 500, encoding="utf-8")
    (tmp_path / "pseudo").mkdir()
    (tmp_path / "pseudo" / "Si.upf").write_text("<UPF/>", encoding="utf-8")
    (tmp_path / "hullworks_run.json").write_text("{}\n", encoding="utf-8")
    (tmp_path / "FW.json").write_text("{}\n", encoding="utf-8")
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    """Return the content of all files by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_scratch_goes_and_text_is_compressed(ended: Path) -> None:
    """Wavefunctions and pseudopotentials are gone, outputs are small, inputs stay readable."""
    archive_run(ended)
    assert not (ended / "pseudo").exists()
    for folder in attempt_folders(ended):
        assert sorted(path.name for path in folder.iterdir()) == ["pw.in", "pw.out.gz", "pwscf.xml.gz"]
        assert gzip.decompress((folder / "pw.out.gz").read_bytes()) == b"iteration\n" * 500


def test_a_second_time_changes_nothing(ended: Path) -> None:
    """Archiving is idempotent, to the byte."""
    archive_run(ended)
    before = everything(ended)
    archive_run(ended)
    assert everything(ended) == before


def test_sha256sum_agrees(ended: Path) -> None:
    """The checksums are in the format of the system's own tool, and cover the run's files alone."""
    listing = archive_run(ended)
    subprocess.run(["sha256sum", "--check", "--quiet", CHECKSUMS_NAME], cwd=ended, check=True)
    names = [line.split("  ", 1)[1] for line in listing.read_text(encoding="utf-8").splitlines()]
    assert "FW.json" not in names
    assert "hullworks_run.json" in names
    assert len(names) == 7


@pytest.mark.parametrize("loss", ["change", "delete"])
def test_a_file_that_changed_afterwards_is_named(ended: Path, loss: str) -> None:
    """Neither a changed nor a missing file is passed over."""
    archive_run(ended)
    victim = ended / "attempt-2" / "pw.in"
    victim.unlink()
    if loss == "change":
        victim.write_text("&SYSTEM\n/\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"attempt-2/pw\.in"):
        verify_archive(ended)
    with pytest.raises(RunError):
        archive_run(ended)


def test_killed_in_the_middle_it_goes_on(ended: Path) -> None:
    """A folder with one output already compressed ends like any other."""
    (ended / "attempt-1" / "pw.out.gz").write_bytes(b"half")
    archive_run(ended)
    assert gzip.decompress((ended / "attempt-1" / "pw.out.gz").read_bytes()) == b"iteration\n" * 500
    verify_archive(ended)


def test_attempts_are_in_order(tmp_path: Path) -> None:
    """The tenth attempt comes after the second."""
    for number in (10, 2, 1):
        (tmp_path / f"attempt-{number}").mkdir()
    assert [folder.name for folder in attempt_folders(tmp_path)] == ["attempt-1", "attempt-2", "attempt-10"]
