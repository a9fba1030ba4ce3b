"""The command line: ``hullworks``.

Exit statuses: 0 done; 1 unexpected; 2 wrong input or usage; 3 settings; 4 level or pseudopotentials; 5 a part or
service is missing; 6 database; 7 wrong state; 8 a run failed; 9 the hull cannot answer; 10 something needs a look (rows
were quarantined under ``--strict``, candidates failed, ``doctor`` found a broken part, an audit a wrong number); 130
interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit."""
    from hullworks.launchers.cli.app import run

    sys.exit(run(sys.argv[1:]))
