"""`lstm-admin sequences`: looks after the sequences of a model, on the socket or the port that the server has for it alone."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from admin.server import GREETING_SECONDS, AdminError, Server, UsageError
from commands.parser import whole_number
from commands.table import aligned
from protos import sequence_admin_pb2 as pb

LISTED, MOST_LISTED = 10, 10_000
MOST_BYTES = 1024**3  # of a file
_VERSION = ("version", "live", "numbered", "busy", "tombs", "state_bytes", "longest_idle", "shortest_idle")
_ONE = (
    "sequence",
    "caller",
    "version",
    "epoch",
    "steps",
    "idle",
    "numbered",
    "busy",
    "state_bytes",
    "answers",
    "answer_bytes",
)


class SequenceServer(Server):
    """The operator's service of a server, at HOST:PORT or `unix:PATH`."""

    declared = pb
    service = "SequenceAdmin"
    options = (("grpc.max_receive_message_length", MOST_BYTES), ("grpc.max_send_message_length", MOST_BYTES))

    def _greet(self) -> None:
        try:
            grpc.channel_ready_future(self._channel).result(min(GREETING_SECONDS, self._timeout_seconds))
        except grpc.FutureTimeoutError as error:
            raise AdminError(
                f"nobody answers at {self._url}: is the server running, with --admin-socket PATH (--socket) or "
                "--admin-token-file FILE (--url HOST:ADMIN_PORT, --token-file FILE, and TLS where its gRPC port has it), and is "
                "it yours?"
            ) from error
        self._greeted = True

    def hint(self, error: grpc.RpcError) -> str:
        """What else there is to say of a refusal."""
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return "; sequences are looked after on --admin-socket or --admin-port of lstm-serve, not on its gRPC port"
        if error.code() == grpc.StatusCode.UNAUTHENTICATED and not self._metadata:
            return "; give it one with --token-file FILE"
        return ""


def address(asked: argparse.Namespace) -> str:
    """Where the server is asked: its socket or its port."""
    if asked.socket:
        return f"unix:{asked.socket.absolute()}"
    return str(asked.url)


def listed(server: Server, asked: argparse.Namespace) -> str:
    """The sequences of a model by version, and some one by one."""
    answer = server.call("List", model=asked.model, most=asked.limit, youngest=asked.youngest)
    if asked.json:
        return _json(answer)
    if not answer.versions:
        return f"{asked.model}: no version has sequences"
    told = aligned([_VERSION, *map(_of_version, answer.versions)])
    if answer.sequences:
        told += ["", *aligned([_ONE, *map(_row, answer.sequences)])]
    if answer.reading:
        told.append("more are still being read from the store")
    return "\n".join(told)


def shown(server: Server, asked: argparse.Namespace) -> str:
    """One sequence, a line for each thing that is known of it."""
    answer = server.call("Show", **_one(asked))
    if asked.json:
        return _json(answer)
    return "\n".join(aligned([[name, value] for name, value in zip(_ONE, _row(answer), strict=True)]))


def exported(server: Server, asked: argparse.Namespace) -> str:
    """Writes a sequence to a file, 0600, and with --end ends it, if it has taken no step since."""
    if asked.file.exists() and not asked.force:
        raise UsageError(f"{asked.file} is there already: --force writes over it")
    answer = server.call("Export", **_one(asked))
    _write(asked.file, answer.file)
    if asked.end:
        seen = answer.sequence
        server.call("End", one=pb.OneRequest(**_one(asked)), epoch=seen.epoch, steps=seen.steps)
    told = f"{_name(answer.sequence)} of {asked.model}: {answer.sequence.steps} steps, {len(answer.file)} bytes in {asked.file}"
    return _json(answer.sequence) if asked.json else told + (", and ended here" if asked.end else "")


def imported(server: Server, asked: argparse.Namespace) -> str:
    """Puts back what a file holds."""
    try:
        content = asked.file.read_bytes()
    except OSError as error:
        raise UsageError(f"{asked.file} cannot be read: {error.strerror}") from error
    answer = server.call(
        "Import", model=asked.model, file=content, replace=asked.replace, any_weights=asked.any_weights
    )
    told = f"{_name(answer)} of {asked.model} goes on in version {answer.version} after {answer.steps} steps"
    return _json(answer) if asked.json else told


def ended(server: Server, asked: argparse.Namespace) -> str:
    """Ends a sequence."""
    answer = server.call("End", one=pb.OneRequest(**_one(asked)))
    return _json(answer) if asked.json else f"{_name(answer)} of {asked.model}: ended after {answer.steps} steps"


def add_actions(command: argparse.ArgumentParser) -> None:
    """What can be done with the sequences of a model; without an action they are listed."""
    command.set_defaults(action=listed, limit=LISTED, youngest=False)
    actions = command.add_subparsers(metavar="ACTION", title="actions")

    def action(name: str, run: Any, meaning: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
        added.set_defaults(action=run)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
        return added

    def one(added: argparse.ArgumentParser) -> None:
        added.add_argument("id", metavar="ID", help="its id; digits are a number")
        added.add_argument("--text", action="store_true", help="the id is a text, even of digits alone")
        added.add_argument("--caller", metavar="NAME", help="whose it is, where several callers have one of that id")

    added = action(
        "list", listed, "count them by version, with ages and bytes, and list some (what is done without an action)"
    )
    added.add_argument(
        "--limit",
        type=whole_number(0, MOST_LISTED),
        default=LISTED,
        metavar="N",
        help="list so many of each version, 0 for none (%(default)s)",
    )
    added.add_argument("--youngest", action="store_true", help="those that have been idle shortest, instead of longest")
    one(action("show", shown, "show one"))
    added = action("export", exported, "write one to a file, mode 0600: whoever has it can read its state and answers")
    one(added)
    added.add_argument("file", type=Path, metavar="FILE")
    added.add_argument("--end", action="store_true", help="then end it here, if it has taken no step since")
    added.add_argument("--force", action="store_true", help="write over a file that is there")
    added = action("import", imported, "put back what a file holds; its client goes on with it")
    added.add_argument("file", type=Path, metavar="FILE")
    added.add_argument("--replace", action="store_true", help="end the one of that id that lives")
    added.add_argument(
        "--any-weights", action="store_true", help="take a state of other weights, if its shapes are the same"
    )
    one(action("end", ended, "end one: its client has to start anew"))


def _one(asked: argparse.Namespace) -> dict[str, Any]:
    digits = asked.id.isascii() and asked.id.isdigit() and not asked.text
    if digits and int(asked.id) >= 2**64:
        raise UsageError(f"{asked.id} is no id that a number can be, which is below 2^64; of a text say --text")
    id = pb.Id(number=int(asked.id)) if digits else pb.Id(text=asked.id)
    return {"model": asked.model, "id": id} | ({} if asked.caller is None else {"caller": asked.caller})


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable by the user alone."""
    made = None
    try:
        descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except OSError as error:
        if made:
            with contextlib.suppress(OSError):
                Path(made).unlink()
        raise AdminError(f"{path} cannot be written: {error.strerror}; the sequence is as it was") from error


def _json(message: Message) -> str:
    return json.dumps(_plain(message), indent=2)


def _plain(value: Any) -> Any:
    """A message as an object with all its fields, numbers as numbers, and an id as what it is."""
    if isinstance(value, pb.Id):
        return _id(value)
    if isinstance(value, Message):
        return {field.name: _plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
    if isinstance(value, int | float | str | bool):
        return value
    return [_plain(each) for each in value]


def _id(id: pb.Id) -> int | str:
    kind = id.WhichOneof("id")
    named: int | str = getattr(id, kind) if kind else ""
    return named


def _name(sequence: pb.Sequence) -> str:
    return f"sequence {_id(sequence.id)!r}"


def _of_version(version: pb.Version) -> Sequence[str]:
    counts = [str(getattr(version, name)) for name in _VERSION[:6]]
    return [*counts, _seconds(version.longest_idle_seconds), _seconds(version.shortest_idle_seconds)]


def _row(one: pb.Sequence) -> list[str]:
    return [
        repr(_id(one.id)),
        one.caller or "-",
        one.version,
        str(one.epoch),
        str(one.steps),
        _seconds(one.idle_seconds),
        "yes" if one.numbered else "broken off" if one.broken_off else "no",
        "yes" if one.busy else "no",
        str(one.state_bytes),
        str(one.answers),
        str(one.answer_bytes),
    ]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}s"
