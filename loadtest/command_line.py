"""The command line of `lstm-loadtest`: what may be asked, and what may not be asked together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from commands import access, version
from commands.parser import Parser, address, number, seconds, whole_number
from loadtest.errors import UsageError
from loadtest.schedule import ARRIVALS, parse_levels

DEFAULT_STEPS = 20  # messages of a sequence of random values
LONGEST = 1e6  # of any time that is asked for, in its own unit

_EXAMPLES = """\
examples:
  lstm-loadtest --url localhost:8001 --model vowels_torch --concurrency 1,8,32
        closed loop: 1, then 8, then 32 requests always in flight. What is the most that the server does?
  lstm-loadtest --url localhost:8001 --model vowels_torch --rate 100:1000:100 --html report.html
        open loop: 100, 200, ... 1000 requests/s sent by the clock, whatever the server does; latency counts from the
        moment a request was meant to leave. What would users see?
  lstm-loadtest --url localhost:8001 --model vowels_torch --rate 500 --data models/data/JapaneseVowels_TEST.ts
        the same with real utterances, each of its own length
  lstm-loadtest --url localhost:8001 --model vowels_torch --p99-below 10
        the highest rate at which 99 of 100 requests are answered within 10 ms (failed ones count as slower)

  lstm-loadtest --url localhost:8001 --model weather_torch --sequences 200 --steps 50 --every 0.032
        200 sequences of a stateful model at once, a message of each every 32 ms; were they all continued rightly?

exit codes: 0 measured, 1 no such server or model, every request failed, or a sequence was
continued wrongly, 2 wrong usage, 130 ended by Ctrl-C (what was
measured until then is reported all the same)
"""


def parser() -> argparse.ArgumentParser:
    """The command line of `lstm-loadtest`."""
    made = Parser(
        prog="lstm-loadtest",
        description="Measures what a server of the Open Inference Protocol v2 does under load, over gRPC: lstm-serve, "
        "Triton, or another.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version.add_flag(made)
    made.add_argument("--url", required=True, type=address, metavar="HOST:PORT", help="the server's gRPC port")
    made.add_argument("--model", required=True, metavar="NAME", help="the model to ask")
    made.add_argument("--model-version", default="", metavar="N", help="its version; the server chooses if left out")
    access.add_flags(made)
    _add_load(made.add_argument_group("load"))
    _add_requests(made.add_argument_group("requests"))
    report = made.add_argument_group("report")
    report.add_argument("--json", type=Path, metavar="FILE", help="all figures, for programs")
    report.add_argument("--csv", type=Path, metavar="FILE", help="one line for each run")
    report.add_argument("--html", type=Path, metavar="FILE", help="one page with plots, which needs nothing else")
    return made


def _add_load(load: argparse._ArgumentGroup) -> None:
    shape = load.add_mutually_exclusive_group()
    shape.add_argument(
        "--concurrency",
        type=_levels(whole=True),
        metavar="LEVELS",
        help="closed loop: so many requests always in flight, one run for each level; 1,8,32 or 10:100:10 (default 1)",
    )
    shape.add_argument(
        "--rate",
        type=_levels(whole=False),
        metavar="LEVELS",
        help="open loop: so many requests/s, one run for each level; 100 or 100,200 or 100:1000:100 (start:end:step)",
    )
    shape.add_argument(
        "--sequences",
        type=_levels(whole=True),
        metavar="LEVELS",
        help="of a stateful model: so many sequences at once, one run for each level; a new one takes the place of one that ends",
    )
    load.add_argument(
        "--p99-below",
        type=number(0.001, LONGEST),
        metavar="MS",
        help="open loop: search the highest rate whose p99 stays below; starts at --rate (default 100). With --sequences and "
        "--every: the most sequences at once",
    )
    load.add_argument(
        "--arrivals", choices=ARRIVALS, default="poisson", help="how an open loop spaces its requests (default poisson)"
    )
    load.add_argument(
        "--duration",
        type=seconds(0.001, LONGEST),
        default=10.0,
        metavar="S",
        help="seconds measured in each run (default 10)",
    )
    load.add_argument(
        "--warm-up",
        type=seconds(0, LONGEST),
        default=1.0,
        metavar="S",
        help="seconds before that, not measured (default 1)",
    )
    load.add_argument(
        "--timeout",
        type=seconds(0.001, LONGEST),
        default=10.0,
        metavar="S",
        help="deadline of each request, in seconds (default 10)",
    )
    load.add_argument(
        "--max-in-flight",
        type=whole_number(1),
        default=10_000,
        metavar="N",
        help="an open loop holds back beyond this, and says so (default 10000)",
    )
    load.add_argument(
        "--every",
        type=seconds(0.0001, LONGEST),
        metavar="S",
        help="with --sequences: a message of each sequence every so many seconds, latency counted from when it was due; "
        "without it the next one leaves when the last is answered",
    )
    load.add_argument("--streaming", action="store_true", help="over ModelStreamInfer instead of ModelInfer")
    load.add_argument(
        "--streams", type=whole_number(1), metavar="N", help="with --streaming: how many streams (default 1)"
    )
    load.add_argument(
        "--seed", type=whole_number(), default=0, metavar="N", help="of arrivals and of random inputs (default 0)"
    )


def _add_requests(requests: argparse._ArgumentGroup) -> None:
    requests.add_argument(
        "--rows", type=whole_number(1), default=1, metavar="N", help="rows (the batch) of each request (default 1)"
    )
    requests.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME:SIZES",
        help="sizes behind the rows of a random input, as in x:30,12; a size that the model leaves free is 24 otherwise",
    )
    requests.add_argument(
        "--steps",
        type=whole_number(1),
        metavar="M",
        help=f"with --sequences: messages of each sequence (default {DEFAULT_STEPS}; with --data as many as there are)",
    )
    requests.add_argument(
        "--step-size",
        type=whole_number(1),
        metavar="K",
        help="with --sequences: time steps of each message (default 1)",
    )
    requests.add_argument(
        "--token-limit",
        type=whole_number(1),
        default=10,
        metavar="N",
        help="random whole numbers are below this; for tokens, at most the vocabulary's size (default 10)",
    )
    requests.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="real inputs, sent in turn. FILE.npz: arrays by input name whose axis 0 is the rows, or arrays named "
        "0, 1, 2, ..., each one sequence of its own length. FILE.ts: a time series archive, cases of their own lengths",
    )


def check(options: argparse.Namespace) -> None:
    """Raises `UsageError` for what does not go together."""
    if options.p99_below is not None:
        if options.concurrency:
            raise UsageError("--p99-below searches a rate (open loop); leave --concurrency out")
        if options.rate and len(options.rate) > 1:
            raise UsageError("--p99-below starts from one --rate; name one instead of several")
    _check_sequences(options)
    if options.streams and not options.streaming:
        raise UsageError("--streams needs --streaming")
    if options.data and options.shape:
        raise UsageError("--data brings its own shapes; leave --shape out")
    for file in (options.json, options.csv, options.html):
        if file and not file.absolute().parent.is_dir():
            raise UsageError(f"the folder of {file} does not exist")


def _check_sequences(options: argparse.Namespace) -> None:
    if not options.sequences:
        for flag in ("steps", "step_size", "every"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag.replace('_', '-')} needs --sequences")
        return
    if options.rows != 1:
        raise UsageError(f"a message of a sequence has one row; leave --rows {options.rows} out")
    if options.p99_below is not None:
        if not options.every:
            raise UsageError("--p99-below with --sequences searches how many keep pace; say the pace with --every")
        if len(options.sequences) > 1:
            raise UsageError("--p99-below starts from one number of --sequences; name one instead of several")


def _levels(*, whole: bool) -> Callable[[str], tuple[float, ...]]:
    def levels(text: str) -> tuple[float, ...]:
        try:
            return parse_levels(text, whole=whole)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return levels
