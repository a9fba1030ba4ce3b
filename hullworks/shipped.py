"""The tables of numbers and words that HullWorks ships beside its code, each with its reasons."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def shipped_yaml(package: str, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the content of a YAML file of this package.

    Args:
        package: Where it lies, such as ``hullworks.analysis``.
        name: The file's name.
    """
    import yaml

    return yaml.safe_load(files(package).joinpath(name).read_text(encoding="utf-8"))
