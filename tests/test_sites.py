"""Sites: files that are filled once, and what a project adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.errors import SettingsError
from hullworks.settings import load_settings
from hullworks.sites import as_queue_adapter, load_site, site_names

if TYPE_CHECKING:
    from hullworks.settings import Settings


def with_lines(project: Settings, text: str) -> Settings:
    """Return the settings of the project with further lines."""
    path = project.project_dir / "hullworks.toml"
    path.write_text(path.read_text() + text)
    return load_settings(project.project_dir)


@pytest.mark.parametrize("name", ["cpu", "gpu", "many-nodes", "devcluster"])
def test_the_shipped_sites_can_be_used(project: Settings, name: str) -> None:
    """Each of them is a valid site."""
    assert name in site_names()
    assert load_site(project, name).partition


def test_the_project_wins_over_the_site(project: Settings) -> None:
    """And what is asked for on the command line over both; variables are joined; other values stay the site's."""
    settings = with_lines(project, '[slurm]\nsite = "cpu"\naccount = "mat-9"\n[slurm.environment]\nA = "1"\n')
    site = load_site(settings, asked={"slots": 2})
    assert (site.account, site.slots, site.partition, site.ranks) == ("mat-9", 2, "standard", 4)
    assert site.environment == {"OMP_NUM_THREADS": "1", "A": "1"}


def test_the_environment_wins_over_the_site(project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere."""
    settings = with_lines(project, '[slurm]\nsite = "cpu"\n')
    monkeypatch.setenv("HULLWORKS_SLURM__ACCOUNT", "mat-8")
    assert load_site(load_settings(settings.project_dir)).account == "mat-8"
    assert load_site(load_settings(settings.project_dir)).slots == 4


def test_a_site_of_ones_own(project: Settings) -> None:
    """Named by its path, relative to the project."""
    (project.project_dir / "our.toml").write_text('partition = "p"\nwalltime_s = 7200\n')
    assert load_site(project, "our.toml").walltime_s == 7200


def test_no_site_is_the_projects_own(project: Settings) -> None:
    """A project may say all itself."""
    assert load_site(with_lines(project, '[slurm]\npartition = "p"\n')).partition == "p"


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "there is no such site"), ("partitoin = 'p'\n", "partitoin"), ("slots = 0\n", "slots"), ("x = [", "read")],
)
def test_a_wrong_site_says_what_is_wrong(project: Settings, text: str | None, said: str) -> None:
    """And where."""
    if text is not None:
        (project.project_dir / "our.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_site(project, "our.toml")


def test_a_mode_that_is_none(project: Settings) -> None:
    """Is refused as a setting is."""
    with pytest.raises(SettingsError, match="mode"):
        load_site(project, asked={"mode": "sideways"})


def test_a_site_in_the_words_of_the_queue_adapter(project: Settings) -> None:
    """Dask's jobs are asked for as an allocation is; what is not said is not asked for."""
    settings = with_lines(project, '[slurm]\nsite = "cpu"\naccount = "mat-9"\nqos = "long"\nexclude = ["cn1", "cn2"]\n')
    adapter = as_queue_adapter(load_site(settings))
    assert adapter == {
        "queue": "standard",
        "account": "mat-9",
        "qos": "long",
        "exclude_nodes": "cn1,cn2",
        "ntasks": 16,
        "cpus_per_task": 1,
        "mem": "32000MB",
        "walltime": "24:00:00",
        "pre_rocket": "module load quantum-espresso/7.2\nexport OMP_NUM_THREADS=1\nulimit -s unlimited",
    }
    assert set(as_queue_adapter(load_site(project, "devcluster"))) == {"queue", "ntasks", "cpus_per_task", "walltime"}
