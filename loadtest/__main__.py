"""`lstm-loadtest`: drives a server of the Open Inference Protocol over gRPC and says what it does under load.

    lstm-loadtest --url localhost:8001 --model vowels_torch --rate 100:1000:100 --html report.html

The environment is set before grpcio is imported. Without its listener threads a client needs half of the CPU for a
request, and what the client does not need it cannot add to the latency.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a server that is not there is told by us, once

from commands import extras
from commands.parser import INTERRUPTED, REFUSED
from loadtest import command_line
from loadtest.errors import LoadTestError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 1 (nothing could be measured), 2 (wrong usage) or 130 (ended by Ctrl-C)."""
    options = command_line.parser().parse_args(arguments)
    try:
        command_line.check(options)
        extras.require(extras.LOAD_TEST)
        from loadtest.runs import carry_out

        return INTERRUPTED if carry_out(options) else 0
    except ModuleNotFoundError as error:
        print(f"lstm-loadtest: {extras.told(error)}", file=sys.stderr)
        return 1
    except LoadTestError as error:
        print(f"lstm-loadtest: {error}", file=sys.stderr)
        return REFUSED if isinstance(error, UsageError) else 1
    except OSError as error:
        print(f"lstm-loadtest: a report cannot be written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lstm-loadtest: interrupted; nothing was measured", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
