"""`lstm-serve`: the command line, every flag of which is also an environment variable.

The environment is read as if its values stood in front of the command line, so a flag always wins and a bad value is
refused by the same check.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from commands import version
from commands.parser import INTERRUPTED, Parser, device, number, seconds, whole_number
from serving import backends
from serving.edge import edges
from serving.errors import StartupError
from serving.lifecycle.control import EVERY_MODEL, MODES
from serving.loading.order import AUTO, FALLBACKS, TRIALS
from serving.telemetry import logs

ENVIRONMENT_PREFIX = "LSTM_SERVE_"
REPOSITORY = "--model-repository"
SWITCH = {"true": True, "false": False}  # what the environment may say of a flag that takes no value


def _threads(text: str) -> int | None:
    return None if text == AUTO else whole_number(1, 1024)(text)


def _server_name(text: str) -> str:
    if text and text.isprintable() and len(text) <= 100:
        return text
    raise argparse.ArgumentTypeError(f"{text[:100]!a} is no name; use 1 to 100 printable characters")


def _sequence_store(text: str) -> str:
    if text == "memory" or (text.startswith("file:") and text[5:].strip() and "\0" not in text):
        return text
    raise argparse.ArgumentTypeError(f"{text[:100]!a} is no store; use memory or file:PATH")


def parser() -> argparse.ArgumentParser:
    """The command line of `lstm-serve`."""
    made = Parser(
        prog="lstm-serve",
        description="Serves the LSTM models of a repository over gRPC (Open Inference Protocol v2), and measures itself.",
        epilog=f"Every flag can be set in the environment too: --grpc-port is {ENVIRONMENT_PREFIX}GRPC_PORT. "
        "Model files are code (TorchScript and SavedModel above all): serve only what you trust.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    port = whole_number(0, 65535)
    add = made.add_argument
    version.add_flag(made)
    add(
        REPOSITORY,
        action="append",
        type=Path,
        required=True,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder with one folder for each model; give the flag once for each folder that is to be served (in the "
        f"environment they stand between {os.pathsep!r})",
    )
    add(
        "--server-name",
        type=_server_name,
        default="lstm-serving",
        metavar="NAME",
        help="what ServerMetadata calls the server; some clients' smoke tests want triton",
    )
    add("--host", default="127.0.0.1", help="address of both ports; 0.0.0.0 for all interfaces")
    add("--grpc-port", type=port, default=8001, metavar="PORT", help="gRPC port; 0 for any free one")
    add("--metrics-port", type=port, default=8002, metavar="PORT", help="port of GET /metrics; 0 for any free one")
    add(
        "--edge",
        choices=edges.NAMES,
        default=edges.AUTO,
        help="what speaks gRPC: our own on nghttp2, or the public grpc.server, which costs several times as much CPU; auto takes "
        "nghttp2 where a tested version of ngh2 is installed and can be loaded",
    )
    for flag, default, meaning in (
        ("keepalive-time", 120.0, "silence of a client after which it is asked whether it is there; 0 never asks"),
        ("keepalive-timeout", 20.0, "how long it may take to answer that before its connection is closed"),
        ("max-connection-idle", 0.0, "how long a connection may be without a call; 0 is for ever"),
        (
            "max-connection-age",
            0.0,
            "how old a connection may become, so that a load balancer can spread clients anew; 0 is for ever",
        ),
        ("max-connection-age-grace", 0.0, "how long the calls on it may take after that; 0 is for ever"),
    ):
        add(
            f"--grpc-{flag}",
            type=seconds(),
            default=default,
            metavar="S",
            help=f"{meaning}; in seconds (Triton's are in milliseconds)",
        )
    add(
        "--backend",
        choices=(AUTO, *backends.names()),
        default=AUTO,
        help="what computes, unless a model's config.pbtxt says so; auto takes what was measured to be best before, else ONNX "
        "Runtime or the smallest start, and measures when nobody asks (see --explain)",
    )
    add(
        "--device",
        type=device(AUTO),
        default="cpu",
        metavar="cpu|cuda:N|auto",
        help="where it computes, unless a model's config.pbtxt says so; auto takes the first GPU, or the CPU if there is none",
    )
    add(
        "--threads",
        type=_threads,
        default=AUTO,
        metavar="N|auto",
        help="compute threads within one batch; LSTM steps depend on each other, so more than one seldom helps. auto is 1, and "
        "what was measured to be best where --backend auto chooses",
    )
    add(
        "--optimize-for",
        choices=("latency", "throughput"),
        default="latency",
        help="what auto chooses by: the shortest time of a call with 1 row, or the most rows a second with 32",
    )
    add(
        "--auto-cache",
        metavar="DIR|off",
        default=argparse.SUPPRESS,
        help="where auto keeps what it has measured of models whose folders cannot be written: a folder of your own with mode "
        "0700 (without the flag lstm-serving/measured in $XDG_CACHE_HOME or ~/.cache), or nowhere",
    )
    add(
        "--explain",
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help="measure what a model can be served with, print the table and the choice, and exit",
    )
    add(
        "--fallback",
        choices=FALLBACKS,
        default="runtime",
        help="when another backend takes over from one that fails: never, when it fails while it serves, or also when it "
        "cannot be loaded; which one: 'fallback' in parameters of config.pbtxt, or whatever else the version holds",
    )
    add(
        "--breaker-failures",
        type=whole_number(1),
        default=3,
        metavar="N",
        help="failures in a row after which a backend is asked its golden samples, and replaced if it cannot answer them",
    )
    add(
        "--breaker-reset",
        type=seconds(),
        default=30.0,
        metavar="S",
        help="how long after its failure a backend is loaded again; it serves again if its golden samples agree",
    )
    add(
        "--trial",
        choices=TRIALS,
        default=AUTO,
        help="load a version in a child process first, so that a file which kills its runtime does not kill the server: what "
        "others made and was not seen to load here (auto), everything, or nothing",
    )
    add(
        "--allow-tf32",
        action="store_true",
        help="let GPUs round the factors of products to 10 bits of mantissa: faster for large networks, and less exact",
    )
    add(
        "--require-verified",
        action="store_true",
        help="refuse a version without golden samples, such as a bare model.onnx",
    )
    add(
        "--row-watch",
        type=number(0, 1, "a share"),
        default=0.01,
        metavar="SHARE",
        help="share of the batches of files of others of which a row is computed again alone and compared, 0 to 1; the first "
        "difference ends batching for that version (default %(default)g)",
    )
    add(
        "--stateful",
        action="append",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="a model that keeps state between the requests of a sequence, as if its config.pbtxt had sequence_batching {}; "
        "several are separated by commas, or by giving the flag several times",
    )
    add(
        "--sequence-store",
        type=_sequence_store,
        default="memory",
        metavar="memory|file:PATH",
        help="where the state of sequences is kept: only in memory, or also in the folder PATH, so that they go on after a crash "
        "or a restart; a folder of this server alone, made with mode 0700 if it is not there",
    )
    add(
        "--sequence-durability",
        choices=("process", "disk"),
        default="process",
        help="what an answered step of a sequence outlives with --sequence-store file:PATH: the server's process, or also the "
        "machine's power, for which each write waits for the disk",
    )
    add(
        "--model-control-mode",
        choices=MODES,
        default="none",
        help="who decides what is loaded: the repository at start (none), the repository as it changes (poll), or clients by "
        "RepositoryModelLoad and RepositoryModelUnload (explicit)",
    )
    add(
        "--load-model",
        action="append",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="in explicit mode, models to load at start, separated by commas or by giving the flag several times; "
        f"{EVERY_MODEL} means all",
    )
    add(
        "--repository-poll-secs",
        type=seconds(0.01),
        default=15.0,
        metavar="S",
        help="in poll mode, how often the repository is looked at; a change is acted upon when it is seen twice",
    )
    add(
        "--max-steps",
        type=whole_number(1),
        default=4096,
        metavar="N",
        help="longest sequence that a request may hold",
    )
    add(
        "--max-message-bytes",
        type=whole_number(1024, 10**9),
        default=128 * 1024 * 1024,
        metavar="N",
        help="largest request and largest answer",
    )
    for flag, meaning in (
        ("--tls-cert", "certificate chain of the gRPC port, PEM; read again when it changes"),
        ("--tls-key", "its private key, PEM, unencrypted"),
        (
            "--tls-client-ca",
            "clients must show a certificate signed by this authority, PEM (mutual TLS); read again when it changes",
        ),
        (
            "--auth-token-file",
            "clients must send one of these tokens, one a line, as metadata 'authorization: Bearer TOKEN'",
        ),
    ):
        add(flag, type=Path, metavar="FILE", default=argparse.SUPPRESS, help=meaning)
    add(
        "--auth-health",
        choices=("token", "open"),
        default="token",
        help="whether health, liveness and readiness may be asked without a token",
    )
    add(
        "--exit-timeout-seconds",
        type=seconds(),
        default=30.0,
        metavar="S",
        help="how long SIGTERM waits for requests in flight",
    )
    add(
        "--access-log",
        type=number(0, 1, "a share"),
        default=0.0,
        metavar="SHARE",
        help="share of the requests that are logged, 0 to 1",
    )
    add("--log-format", choices=logs.FORMATS, default="text", help="log lines for people or for machines")
    add("--log-level", choices=logs.LEVELS, default="info", help="the least severe level that is logged")
    return made


def arguments(command_line: Sequence[str], environment: dict[str, str]) -> list[str]:
    """The command line with the environment's values put in front. Raises `StartupError` on a variable that is no flag."""
    flags = {
        ENVIRONMENT_PREFIX + flag[2:].replace("-", "_").upper(): (flag, action.nargs == 0)
        for action in parser()._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag not in ("--help", "--version")
    }
    front = []
    for variable, value in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not _set_by_kubernetes(variable, value):
            if variable not in flags:
                raise StartupError(
                    f"the environment sets {variable}, which is no flag; known are {', '.join(sorted(flags))}"
                )
            flag, bare = flags[variable]
            if flag == REPOSITORY:  # a flag that may be given several times would not win, but be added
                given = any(REPOSITORY.startswith(part.partition("=")[0]) for part in command_line if part[:3] == "--m")
                front += [] if given else [f"{flag}={path}" for path in value.split(os.pathsep) if path]
            elif not bare:
                front.append(f"{flag}={value}")
            elif value not in SWITCH:
                raise StartupError(f"the environment sets {variable} to {value!r}; it may be {' or '.join(SWITCH)}")
            elif SWITCH[value]:
                front.append(flag)
    return [*front, *command_line]


def _set_by_kubernetes(variable: str, value: str) -> bool:
    """Whether this is one of the variables that Kubernetes sets in every pod for a Service called `lstm-serve...`."""
    return value.startswith(("tcp://", "udp://", "sctp://")) or bool(
        re.search(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)_(ADDR|PORT|PROTO)$", variable)
    )


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 stopped as asked, 1 cannot start or cut off, 2 wrong usage, 130 Ctrl-C while measuring."""
    try:
        asked = parser().parse_args(arguments(sys.argv[1:] if command_line is None else command_line, dict(os.environ)))
        logs.configure(asked.log_format, asked.log_level)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a busy port is told by us, once
        from serving.settings import Settings

        fields = {name: value for name, value in vars(asked).items() if not name.startswith("log_")}
        explained = fields.pop("explain", None)
        fields["load_model"] = [name for names in fields.get("load_model", ()) for name in names.split(",") if name]
        fields["stateful"] = [name for names in fields.get("stateful", ()) for name in names.split(",") if name]
        if fields["load_model"] and asked.model_control_mode != "explicit":
            raise StartupError("--load-model goes with --model-control-mode explicit; otherwise every model is loaded")
        if asked.sequence_durability != "process" and asked.sequence_store == "memory":
            raise StartupError(
                f"--sequence-durability {asked.sequence_durability} goes with --sequence-store file:PATH; in memory nothing "
                "outlives the process"
            )
        if explained:
            from serving.explain import explain

            print(explain(Settings(**fields), explained))
            return 0
        from serving.server import serve

        return serve(Settings(**fields))
    except StartupError as error:
        print(f"lstm-serve: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
