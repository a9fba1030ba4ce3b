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
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hullworks.errors import SettingsError

SETTINGS_FILE = "hullworks.toml"
ENV_PREFIX = "HULLWORKS_"
PROJECT_DIR_VARIABLE = "HULLWORKS_PROJECT_DIR"


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
    known = known_variables()
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
