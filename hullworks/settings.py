"""Settings: one class, read from ``hullworks.toml`` in the project folder and ``HULLWORKS_*`` in the environment.

The environment wins over the file. Nested settings use two underscores: ``HULLWORKS_QE__COMMAND`` is ``[qe] command``.
A secret may stand in the environment, or in a file that only its owner can read (``[database] uri_file``); it is never
printed.
"""

from __future__ import annotations

import os
import stat
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hullworks.errors import SettingsError

SETTINGS_FILE = "hullworks.toml"
ENV_PREFIX = "HULLWORKS_"
PROJECT_DIR_VARIABLE = "HULLWORKS_PROJECT_DIR"
JOB_VARIABLE = "HULLWORKS_JOB"
"""Name of the queue job that a worker runs in; no setting."""


def _default_parts_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hullworks"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(_Section):
    """Where the documents live.

    Attributes:
        uri: A MongoDB address; none means the private server of this project.
        uri_file: A file, readable by its owner alone, that holds the address.
        name: Name of the database.
        cache_gb: Memory for the private server's cache, GB.
        wait_s: How long a worker waits for a server that does not answer, s.
    """

    uri: SecretStr | None = None
    uri_file: Path | None = None
    name: str = "hullworks"
    cache_gb: float = Field(default=0.25, ge=0.25)
    wait_s: float = Field(default=600.0, gt=0.0)


class QeSettings(_Section):
    """Quantum ESPRESSO at this site.

    Attributes:
        command: How to start ``pw.x``, for example ``mpirun -np 4 pw.x``; none means the embedded one, then the path.
        pseudo_families: Names of pseudopotential families and their folders of UPF files.
        walltime_s: Longest time for one run of ``pw.x``, s; the run stops cleanly before it.
        threads: OpenMP threads of one run.
    """

    command: str | None = None
    pseudo_families: dict[str, Path] = Field(default_factory=dict)
    walltime_s: float = Field(default=86400.0, gt=0.0)
    threads: int = Field(default=1, ge=1)


class VaspSettings(_Section):
    """VASP at this site.

    Attributes:
        command: How to start ``vasp_std``.
    """

    command: str | None = None


class LaunchSettings(_Section):
    """How runs are fed and watched.

    Attributes:
        window: Most candidates on the LaunchPad at a time.
        heartbeat_s: How often a running graph says that it lives, s.
        lost_after_s: A run of another machine that was silent for so long is lost, s.
    """

    window: int = Field(default=500, ge=1)
    heartbeat_s: int = Field(default=30, ge=1)
    lost_after_s: int = Field(default=600, ge=10)


class SlurmSettings(_Section):
    """How this project asks a SLURM cluster for allocations; what is not said here, the site's file says.

    Attributes:
        site: Name of a site file that HullWorks ships, or path of one's own; its fields are those of this section.
        partition: Partitions, as ``sbatch --partition`` takes them.
        account: Account to charge.
        qos: Quality of service.
        constraint: Features that the nodes must have.
        reservation: Reservation to run in.
        exclude: Nodes that are never used.
        exclusive: Ask for whole nodes.
        nodes: Nodes of an allocation; with more than one, each run uses all of them.
        slots: Runs side by side in an allocation.
        ranks: MPI ranks of one run.
        threads: Processors of one rank.
        gpus: GPUs of one run.
        memory_MB: Memory of one run, MB; none asks for what the partition gives.
        walltime_s: Time of an allocation, s.
        lead_s: How long before the end of an allocation its runs are told to stop, s.
        extra: Further options of ``sbatch``, one per item, such as ``--mail-type=FAIL``.
        modules: Modules to load.
        environment: Variables for the runs.
        setup: Lines of shell that come before the worker.
        scratch: Folder on the node for temporary files; may hold variables of the job's shell.
        python: The interpreter that starts the worker; none means the one that submits.
        mode: ``packed``: an allocation works through many runs; ``single``: a job for each run, with the time and
            memory that it needs; ``array``: the same as the tasks of job arrays, all alike.
        runs_per_slot: So many runs one after another are an allocation's share of the work, in ``packed`` mode; it does
            more when nobody else takes them.
        max_jobs: Most jobs of this project in the queue.
        submissions_per_minute: Most jobs submitted in a minute.
        idle_s: How long an allocation waits for work before it ends, s.
        look_every_s: Pause between two looks at queue and LaunchPad, s.
        answer_s: How long a command of SLURM may take, s.
        scheduler_address: Address of the submitting machine as the nodes reach it, for Dask; none means its host name.
    """

    site: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: list[str] = Field(default_factory=list)
    exclusive: bool = False
    nodes: int = Field(default=1, ge=1)
    slots: int = Field(default=1, ge=1)
    ranks: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    memory_MB: int | None = Field(default=None, ge=1)
    walltime_s: int = Field(default=86400, ge=60)
    lead_s: int = Field(default=120, ge=0, le=65535)
    extra: list[str] = Field(default_factory=list)
    modules: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    setup: list[str] = Field(default_factory=list)
    scratch: str | None = None
    python: str | None = None
    mode: Literal["packed", "single", "array"] = "packed"
    runs_per_slot: int = Field(default=4, ge=1)
    max_jobs: int = Field(default=100, ge=1)
    submissions_per_minute: int = Field(default=600, ge=1)
    idle_s: float = Field(default=120.0, ge=0.0)
    look_every_s: float = Field(default=10.0, gt=0.0)
    answer_s: float = Field(default=10.0, gt=0.0)
    scheduler_address: str | None = None

    @property
    def cpus_per_run(self) -> int:
        """Processors of one run."""
        return self.ranks * self.threads


class Settings(BaseSettings):
    """All settings of a project.

    Attributes:
        project_dir: The folder with ``hullworks.toml``; everything the project stores lies in or below it.
        data_dir: Private database, run folders and written configuration; ``.hullworks`` in the project folder.
        parts_dir: Embedded parts (Quantum ESPRESSO, ...), shared by the projects of a user.
        level: The level of theory that is used when none is named.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    project_dir: Path
    data_dir: Path = Path(".hullworks")
    parts_dir: Path = Field(default_factory=_default_parts_dir)
    level: str = "qe-pbe-fast"
    database: DatabaseSettings = DatabaseSettings()
    qe: QeSettings = QeSettings()
    vasp: VaspSettings = VaspSettings()
    launch: LaunchSettings = LaunchSettings()
    # Made when it is needed: of an instance that stood here all fields would count as said by the project, and so win
    # over those of the site's file.
    slurm: SlurmSettings = Field(default_factory=SlurmSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's interface
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is one file, in TOML
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - secrets name their file themselves
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file (which arrives as constructor arguments)."""
        return env_settings, init_settings

    @property
    def embedded_database(self) -> bool:
        """Whether the project uses its private MongoDB server."""
        return self.database.uri is None and self.database.uri_file is None

    @property
    def runs_dir(self) -> Path:
        """Folder of the run folders."""
        return self.data_dir / "runs"

    @property
    def config_dir(self) -> Path:
        """Folder of the configuration written for FireWorks and jobflow."""
        return self.data_dir / "config"


def find_project_dir(start: Path | None = None) -> Path:
    """Return the nearest folder upwards that holds ``hullworks.toml``, else ``start`` itself."""
    named = os.environ.get(PROJECT_DIR_VARIABLE)
    if named:
        return Path(named).resolve()
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / SETTINGS_FILE).is_file()), here)


def load_settings(project_dir: Path | None = None) -> Settings:
    """Read the settings of a project.

    Args:
        project_dir: The project folder; by default found from the working folder upwards.

    Raises:
        SettingsError: A setting is unknown, wrong, or its file is unreadable or open to others.
    """
    folder = (project_dir or find_project_dir()).resolve()
    path = folder / SETTINGS_FILE
    values = _read_toml(path)
    _refuse_unknown_variables()
    try:
        settings = Settings(**{**values, "project_dir": folder})
    except ValidationError as error:
        raise SettingsError(_summary(error), str(path), "`hullworks config` lists every setting.") from None
    return _resolved(settings, folder)


@cache
def get_settings() -> Settings:
    """Return the settings of the project that the working folder lies in; read once per process."""
    return load_settings()


def read_secret_file(path: Path) -> SecretStr:
    """Read a secret from a file that only its owner can read.

    Raises:
        SettingsError: The file is missing or readable by others.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"the secret cannot be read ({error.strerror})", str(path)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError("others can read this secret", str(path), f"Run: chmod 600 {path}")
    return SecretStr(text)


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the file cannot be read ({error})", str(path)) from None


def _resolved(settings: Settings, folder: Path) -> Settings:
    """Make relative folders relative to the project folder, not to the working folder."""
    families = {name: _under(folder, path) for name, path in settings.qe.pseudo_families.items()}
    return settings.model_copy(
        update={
            "project_dir": folder,
            "data_dir": _under(folder, settings.data_dir),
            "parts_dir": _under(folder, settings.parts_dir),
            "qe": settings.qe.model_copy(update={"pseudo_families": families}),
        }
    )


def _under(folder: Path, path: Path) -> Path:
    return (folder / path.expanduser()).resolve()


def _refuse_unknown_variables() -> None:
    """Refuse a mistyped ``HULLWORKS_*`` variable, which pydantic would pass over in silence."""
    known = known_variables() | {JOB_VARIABLE}
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith("HULLWORKS_QE__PSEUDO_FAMILIES__"):
            raise SettingsError("no such setting", f"environment variable {name}", "`hullworks config` lists them.")


@cache
def known_variables() -> frozenset[str]:
    """Return the names of all environment variables that are settings."""
    names = set()
    for field, info in Settings.model_fields.items():
        names.add(f"{ENV_PREFIX}{field}".upper())
        section = info.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            names |= {f"{ENV_PREFIX}{field}__{inner}".upper() for inner in section.model_fields}
    return frozenset(names)


def _summary(error: ValidationError) -> str:
    # The input is left out on purpose: it may be a secret.
    lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].lower()}" for item in error.errors()]
    return "; ".join(lines)
