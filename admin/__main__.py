"""`lstm-admin`: asks a running server for its models, and loads, unloads and swaps them, by the protocol's own calls.

    lstm-admin --url localhost:8001 swap vowels_torch --backend torchscript

All but `shadow` and `sequences` work with Triton too. The protocol has no call for a swap: `swap` reads the configuration
in force, changes one place in it and loads the model with the result. This also fixes what the server had completed by
itself, until the model is loaded without a configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # what is wrong is told by us, once; grpcio reads it when it is imported

from admin import index as listing
from admin import sequences as looking_after
from admin import shadows
from admin.configuration import TRITON_NAMES, described, read_config, swapped
from admin.server import GREETING_SECONDS, AdminError, Server, UsageError, from_options
from commands import access, version
from commands.parser import INTERRUPTED, REFUSED, Parser, address, device, seconds, whole_number

METRICS_PORT = 8002
AUTO = "auto"  # as a backend to swap to: whatever the repository and the server's flags say
_EXAMPLES = """\
examples:
  lstm-admin --url localhost:8001 index
        which models are there, in what state is each version, and what computes it?
  lstm-admin --url localhost:8001 swap vowels_torch --backend torchscript --device cuda:0
        compute elsewhere while requests flow: the old one answers until the new one is ready
  lstm-admin --url localhost:8001 load vowels_torch
        look at the repository again: its versions, and config.pbtxt as it is on disk
  lstm-admin --url localhost:8001 shadow vowels_torch
        requests are also sent to another backend or version: what came of it?
  lstm-admin --socket /run/lstm/admin.sock sequences weather_torch
        how many sequences live, how old are they, how much memory do they take?
  lstm-admin --socket /run/lstm/admin.sock sequences weather_torch export 7 seven.sequence --end
        take a sequence along; on another server: sequences weather_torch import seven.sequence

exit codes: 0 done, 1 the server refuses it or cannot be reached, 2 wrong usage
"""


def index(server: Server, asked: argparse.Namespace) -> str:
    """What is in the repository, or these models of it, as a table or as JSON."""
    found = listing.entries(server, asked.models)
    return listing.as_json(found) if asked.json else listing.as_table(found)


def load(server: Server, asked: argparse.Namespace) -> str:
    """Loads a model, or looks again at one that is loaded."""
    seconds = server.load(asked.model, read_config(asked.config) if asked.config else None)
    return _told(asked, f"{asked.model}: loaded in {seconds:.3g} s", seconds=round(seconds, 6))


def unload(server: Server, asked: argparse.Namespace) -> str:
    """Stops serving a model; the protocol's call is answered alike for names that never were, so the index is asked first."""
    known = list(server.call("RepositoryIndex").models)
    if asked.model not in {entry.name for entry in known}:
        names = ", ".join(dict.fromkeys(entry.name for entry in known)) or "none"
        raise AdminError(f"there is no model '{asked.model}' to unload; the server knows {names}")
    was_there = any(entry.name == asked.model and entry.state in ("READY", "LOADING") for entry in known)
    server.call("RepositoryModelUnload", model_name=asked.model)
    return _told(asked, f"{asked.model}: {'unloaded' if was_there else 'was not loaded'}", was_loaded=was_there)


def swap(server: Server, asked: argparse.Namespace) -> str:
    """Serves a model by another backend, device or number of instances, and says from what to what."""
    if not (asked.backend or asked.device or asked.count):
        raise UsageError("swap to what? Give at least one of --backend, --device and --count")
    back = asked.backend == AUTO
    if back and (asked.device or asked.count):
        raise UsageError(
            "--backend auto goes back to what the repository and the server's flags say: leave --device and --count out"
        )
    before = described(config := server.config(asked.model))
    seconds = server.load(asked.model, None if back else swapped(config, asked.backend, asked.device, asked.count))
    after = described(server.config(asked.model))
    told = {"before": before, "after": after, "seconds": round(seconds, 6)}
    return _told(asked, f"{asked.model}: {before} -> {after}, in {seconds:.3g} s", **told)


def shadow(server: Server, asked: argparse.Namespace) -> str:
    """Tells what came of requests that the server also sent elsewhere; its metrics know that, its RPCs do not."""
    url = asked.metrics_url or f"http://{asked.url.rpartition(':')[0]}:{METRICS_PORT}/metrics"
    found = shadows.lines(shadows.read(url, min(GREETING_SECONDS, asked.timeout_seconds)), asked.model)
    if not found:
        raise AdminError(
            f"{url} says nothing of a shadow of the model '{asked.model}': it has none, or these are the metrics of another "
            "server (--metrics-url URL)"
        )
    return json.dumps(found, indent=2) if asked.json else shadows.as_table(found)


def sequences(server: Server, asked: argparse.Namespace) -> str:
    """Lists sequences of a model, or does with one what was asked."""
    told: str = asked.action(server, asked)
    return told


def _told(asked: argparse.Namespace, text: str, **said: object) -> str:
    """One line for people, or the same as an object for programs."""
    return json.dumps({"model": asked.model, **said}) if asked.json else text


def _name(text: str) -> str:
    if text and text.isprintable():
        return text
    raise argparse.ArgumentTypeError(f"{text!a} is not the name of a model")


def _web_address(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not the address of metrics, as in http://localhost:8002/metrics")


def parser() -> argparse.ArgumentParser:
    """The command line of `lstm-admin`; `run` of what it parses is the function of the command."""
    made = Parser(
        prog="lstm-admin",
        description="Asks a running server for its models, and loads, unloads and swaps them, over gRPC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version.add_flag(made)
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--url", type=address, metavar="HOST:PORT", help="the server's gRPC port; for sequences its --admin-port"
    )
    where.add_argument("--socket", type=Path, metavar="PATH", help="for sequences, its --admin-socket")
    made.add_argument(
        "--timeout-seconds",
        type=seconds(0.001),
        default=300.0,
        metavar="S",
        help="for an answer; loading may take long (300)",
    )
    access.add_flags(made)
    subcommands = made.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def command(run: Callable[[Server, argparse.Namespace], str], meaning: str) -> Callable[..., object]:
        added = subcommands.add_parser(run.__name__, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
        added.set_defaults(run=run)
        if run is not index:
            added.add_argument("model", type=_name, metavar="MODEL", help="its name")
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
        return added.add_argument

    add = command(
        index, "list models and versions: state, what computes, how far it was proved, and why one is not ready"
    )
    add("models", nargs="*", type=_name, metavar="MODEL", help="list these models alone")
    add = command(load, "load a model, or look again at what its repository holds")
    add("--config", type=Path, metavar="FILE", help="ModelConfig to use instead: JSON, or text form in FILE.pbtxt")
    command(unload, "stop serving a model; requests that it has taken are still answered")
    add = command(swap, "serve all versions of a model by another backend, on another device, or by more instances")
    add(
        "--backend",
        metavar="B",
        help="a backend that the version has a file for: onnx_runtime, torchscript or saved_model, or as Triton calls them: "
        + ", ".join(dict.fromkeys(TRITON_NAMES.values()))
        + f"; {AUTO}, alone: what the repository and the server's own flags say",
    )
    add("--device", type=device(), metavar="cpu|cuda:N", help="where it computes")
    add("--count", type=whole_number(1), metavar="N", help="instances")
    add = command(shadow, "show what came of requests that are also sent elsewhere to be compared")
    add("--metrics-url", type=_web_address, metavar="URL", help=f"default http://HOST:{METRICS_PORT}/metrics")
    command(sequences, "look after the sequences of a model: list, show, export, import and end them")
    looking_after.add_actions(subcommands.choices["sequences"])
    return made


def _server(asked: argparse.Namespace) -> Server:
    if asked.run is sequences:
        asked.url = looking_after.address(asked)
        return from_options(asked, looking_after.SequenceServer)
    if asked.socket:
        raise UsageError("--socket is for sequences alone: name the server's gRPC port with --url HOST:PORT")
    return from_options(asked, Server)


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 1 refused or not reached, 2 wrong usage, 130 ended by Ctrl-C."""
    asked = parser().parse_args(command_line)
    try:
        with _server(asked) as server:
            print(asked.run(server, asked))
        return 0
    except AdminError as error:
        print(f"lstm-admin: {error}", file=sys.stderr)
        return REFUSED if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
