"""What a cluster needs: the site file that its staff fills once, and what a project's ``[slurm]`` settings add."""

from __future__ import annotations

import shlex
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hullworks.errors import SettingsError
from hullworks.settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hullworks.settings import Settings

SITES = "sites"
SUFFIX = ".toml"


def load_site(settings: Settings, name: str | None = None, asked: Mapping[str, Any] | None = None) -> SlurmSettings:
    """Return how this project asks its cluster for allocations.

    What ``[slurm]`` says wins over the site's file; variables for the runs are those of both.

    Args:
        settings: The project's settings.
        name: Name of a site that HullWorks ships, or path of a file; by default ``[slurm] site``.
        asked: What wins over both.

    Raises:
        SettingsError: There is no such site, its file is wrong, or something else is asked for than can be.
    """
    own = {**settings.slurm.model_dump(exclude_unset=True), **(asked or {})}
    chosen = name or settings.slurm.site
    found = {} if chosen is None else read_site(chosen, settings.project_dir)
    variables = {**found.get("environment", {}), **own.get("environment", {})}
    try:
        return SlurmSettings(**{**found, **own, "site": chosen, "environment": variables})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg'].lower()}" for item in error.errors())
        where = f"site {chosen}" if chosen else "[slurm]"
        raise SettingsError(wrong, where, "A site's fields are those of `[slurm]`.") from None


def read_site(name: str, folder: Path) -> dict[str, Any]:
    """Return the content of a site's file.

    Args:
        name: Name of a site that HullWorks ships, or path of a file.
        folder: What a relative path is relative to.

    Raises:
        SettingsError: There is no such site, or its file cannot be read.
    """
    shipped = files("hullworks.slurm").joinpath(SITES) / f"{name}{SUFFIX}"
    path = folder / Path(name).expanduser()
    source = shipped if "/" not in name and shipped.is_file() else path
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = f"HullWorks ships: {', '.join(site_names())}; or name a file."
        raise SettingsError("there is no such site", name, known) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the site's file cannot be read ({error})", str(source)) from None


def as_queue_adapter(site: SlurmSettings) -> dict[str, Any]:
    """Return a site in the words of FireWorks' queue adapter, which Dask's jobs are asked for with; only what is said.

    A job of Dask has the processors and the memory of an allocation on one node.
    """
    lines = [f"module load {shlex.quote(module)}" for module in site.modules]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()]
    hours, rest = divmod(site.walltime_s, 3600)
    fields = {
        "queue": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "exclude_nodes": ",".join(site.exclude),
        "ntasks": -(-site.ranks // site.nodes) * site.slots,
        "cpus_per_task": site.threads,
        "mem": f"{site.memory_MB * site.slots}MB" if site.memory_MB else None,
        "walltime": f"{hours:02d}:{rest // 60:02d}:00",
        "pre_rocket": "\n".join([*lines, *site.setup]),
    }
    return {name: value for name, value in fields.items() if value}


def site_names() -> list[str]:
    """Return the names of the sites that HullWorks ships."""
    folder = files("hullworks.slurm").joinpath(SITES)
    return sorted(each.name.removesuffix(SUFFIX) for each in folder.iterdir() if each.name.endswith(SUFFIX))
