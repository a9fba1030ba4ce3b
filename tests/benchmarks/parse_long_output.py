"""How long the parser takes for a long output: ``python tests/benchmarks/parse_long_output.py [MB]``.

The output is a recorded relaxation whose ionic step is repeated. Prints megabytes, ionic steps, seconds of processor
time, and the largest resident memory.
"""

from __future__ import annotations

import gzip
import resource
import sys
import tempfile
import time
from pathlib import Path

from hullworks.workflows.qe import parse_run

RECORDED = Path(__file__).parent.parent / "workflows" / "qe" / "recorded" / "6.7" / "vc_relax" / "pw.out.gz"


def main() -> None:
    """Make the output, parse it, print what it took."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    text = gzip.decompress(RECORDED.read_bytes()).decode()
    head, mark, tail = text.partition("     NEW-OLD atomic charge density")
    step, end, tail = (mark + tail).partition("     bfgs converged")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pw.out").write_text(head + step * (megabytes * 2**20 // len(step)) + end + tail, encoding="utf-8")
        start = time.process_time()
        run = parse_run(folder)
        spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{megabytes} MB, {run.n_ionic_steps} ionic steps: {spent:.2f} s, {peak:.0f} MB resident\n")


if __name__ == "__main__":
    main()
