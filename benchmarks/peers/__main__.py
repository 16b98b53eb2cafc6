"""lstm-serve, the real Triton and MLServer under the same loads, in turn; and what our edge and gRPC itself cost here.

    python -m benchmarks.peers --report docs/performance.md --chart docs/pictures/peers.svg

`make bench-peers` runs it; the first time it installs the peers. A trial run (--quick), or a part of it (--servers,
--loads), is printed and written nowhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import campaign, chart, page
from benchmarks.peers.bench import Bench, Effort
from benchmarks.peers.load import GROUPS, LOADS
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON

SERVERS = (OURS, TRITON, MLSERVER, EDGE, FLOOR, PUBLIC)
PROPER, QUICK = Effort(3.0), Effort(0.5, 100, 400)


def main() -> int:
    """Entry point. Exit code 1 if nothing could be measured; what else failed is told in the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--environments", type=Path, default=Path(".envs"), help="the folder of the peers' environments"
    )
    parser.add_argument("--report", type=Path, help="the page whose figures are replaced")
    parser.add_argument("--chart", type=Path, help="the picture that is drawn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of very small loads, to see that all works")
    parser.add_argument(
        "--servers", nargs="+", choices=SERVERS, default=SERVERS, metavar="NAME", help=", ".join(SERVERS)
    )
    parser.add_argument("--loads", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    asked = parser.parse_args()
    loads = [load for load in LOADS if load.group in asked.loads]
    rounds = 1 if asked.quick else asked.rounds
    effort = QUICK if asked.quick else PROPER
    with tempfile.TemporaryDirectory() as folder:
        measured = campaign.run(
            Bench(asked.environments.absolute(), Path(folder), effort), asked.servers, loads, rounds
        )
    figures = page.render(measured, effort.seconds)
    whole = set(asked.servers) == set(SERVERS) and set(asked.loads) == set(GROUPS) and not asked.quick
    if whole and asked.report:
        page.write(asked.report, figures)
    if whole and asked.chart:
        asked.chart.parent.mkdir(parents=True, exist_ok=True)
        asked.chart.write_text(chart.drawn(measured), encoding="utf-8")
    print(figures, end="")
    return int(not measured.figures)


if __name__ == "__main__":
    sys.exit(main())
