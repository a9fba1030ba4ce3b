"""Write the SHA-256 of every file that the embedded family can make; run it when the converter changes on purpose."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import hullworks.workflows.qe.pseudos.family as family_module
from hullworks.workflows.qe.pseudos import gth_elements, gth_parameters, gth_to_upf, gth_valences


def main() -> None:
    """Convert all entries of the table and write their digests beside the family's code."""
    entries = [gth_parameters(element, q) for element in gth_elements() for q in gth_valences(element)]
    digests = {entry.name: hashlib.sha256(gth_to_upf(entry)).hexdigest() for entry in entries}
    path = Path(family_module.__file__).with_name(family_module.HASHES_NAME)
    path.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
