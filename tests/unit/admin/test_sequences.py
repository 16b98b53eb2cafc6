"""What `lstm-admin sequences` sends, writes and says; the server is a double."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from admin import __main__ as admin
from protos import sequence_admin_pb2 as pb
from serving.edge.admin_port import AdminPort
from serving.errors import OutOfStep
from serving.protocol.methods import Method

Asked = Callable[..., tuple[int, str, str]]
SEVEN = pb.Sequence(
    id=pb.Id(number=7), version="2", epoch=99, steps=12, numbered=True, state_bytes=80, idle_seconds=1.25
)


class Service:
    """Notes what is asked."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.goes_on = False
        self.reading = False

    def list(self, request: pb.ListRequest) -> pb.ListResponse:
        self.seen.append(request)
        if request.model == "empty":
            return pb.ListResponse()
        versions = [pb.Version(version="2", live=3, numbered=2, busy=1, state_bytes=240, longest_idle_seconds=61.04)]
        return pb.ListResponse(versions=versions, sequences=[SEVEN] if request.most else [], reading=self.reading)

    def show(self, request: pb.OneRequest) -> pb.Sequence:
        self.seen.append(request)
        return SEVEN

    def export(self, request: pb.OneRequest) -> pb.ExportResponse:
        self.seen.append(request)
        return pb.ExportResponse(sequence=SEVEN, file=b"what was exported")

    def put(self, request: pb.ImportRequest) -> pb.Sequence:
        self.seen.append(request)
        return SEVEN

    def end(self, request: pb.EndRequest) -> pb.Sequence:
        self.seen.append(request)
        if self.goes_on:
            raise OutOfStep("it has taken 13 steps")
        return SEVEN


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def asked(
    service: Service, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> Iterator[Asked]:
    table = (
        Method("List", pb.ListRequest, service.list),
        Method("Show", pb.OneRequest, service.show),
        Method("Export", pb.OneRequest, service.export),
        Method("Import", pb.ImportRequest, service.put),
        Method("End", pb.EndRequest, service.end),
    )
    path = tmp_path_factory.mktemp("s") / "socket"
    port = AdminPort("lstm_serving.admin.SequenceAdmin", table, path=path)

    def run(*line: object) -> tuple[int, str, str]:
        try:
            code = admin.main(["--socket", str(path), "--timeout-seconds", "20", "sequences", *map(str, line)])
        except SystemExit as ended:
            code = int(str(ended.code))
        told = capsys.readouterr()
        return code, told.out, told.err

    yield run
    port.close()


def test_without_an_action_they_are_listed(asked: Asked, service: Service) -> None:
    code, out, _ = asked("m")
    assert code == 0
    assert out.splitlines() == [
        "version  live  numbered  busy  tombs  state_bytes  longest_idle  shortest_idle",
        "2        3     2         1     0      240          61.0s         0.0s",
        "",
        "sequence  caller  version  epoch  steps  idle  numbered  busy  state_bytes  answers  answer_bytes",
        "7         -       2        99     12     1.2s  yes       no    80           0        0",
    ]
    service.reading = True
    assert (
        asked("m", "list", "--limit", 0, "--youngest")[1].splitlines()[-1] == "more are still being read from the store"
    )
    assert service.seen == [pb.ListRequest(model="m", most=10), pb.ListRequest(model="m", most=0, youngest=True)]
    assert asked("empty")[1] == "empty: no version has sequences\n"
    told = json.loads(asked("m", "--json")[1])
    assert told == json.loads(asked("m", "list", "--json")[1])
    assert (told["versions"][0]["live"], told["sequences"][0]["id"], told["sequences"][0]["caller"]) == (3, 7, "")
    assert asked("m", "list", "--limit", "-1")[0] == 2


@pytest.mark.parametrize(
    ("line", "id", "caller"),
    [
        (("7",), pb.Id(number=7), None),
        (("7", "--text"), pb.Id(text="7"), None),
        (("meter-7", "--caller", "token:ab"), pb.Id(text="meter-7"), "token:ab"),
        (("7", "--caller", ""), pb.Id(number=7), ""),
    ],
)
def test_digits_are_a_number_unless_they_are_said_to_be_a_text(
    line: tuple[str, ...], id: pb.Id, caller: str | None, asked: Asked, service: Service
) -> None:
    assert asked("m", "show", *line)[0] == 0
    assert service.seen == [pb.OneRequest(model="m", id=id, caller=caller)]


def test_one_is_shown_and_ended(asked: Asked, service: Service) -> None:
    assert asked("m", "show", 7)[1].splitlines()[4] == "steps         12"
    assert json.loads(asked("m", "show", 7, "--json")[1])["idle_seconds"] == 1.25
    assert asked("m", "end", 7)[:2] == (0, "sequence 7 of m: ended after 12 steps\n")
    assert service.seen[-1] == pb.EndRequest(one=pb.OneRequest(model="m", id=pb.Id(number=7)))
    code, _, err = asked("m", "show", 2**64)
    assert (code, err) == (
        2,
        f"lstm-admin: {2**64} is no id that a number can be, which is below 2^64; of a text say --text\n",
    )


def test_an_export_is_the_users_alone_and_writes_over_nothing(asked: Asked, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "seven"
    told = f"sequence 7 of m: 12 steps, 17 bytes in {file}"
    assert asked("m", "export", 7, file)[:2] == (0, f"{told}\n")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"what was exported", 0o600)
    file.write_text("something else")
    code, _, err = asked("m", "export", 7, file)
    assert (code, "is there already: --force writes over it" in err, file.read_text()) == (2, True, "something else")
    assert asked("m", "export", 7, file, "--force", "--end")[1] == f"{told}, and ended here\n"
    one = pb.OneRequest(model="m", id=pb.Id(number=7))
    assert service.seen[-1] == pb.EndRequest(one=one, epoch=99, steps=12)
    assert file.read_bytes() == b"what was exported"
    service.goes_on = True
    code, out, err = asked("m", "export", 7, file, "--force", "--end")
    assert (code, out, "it has taken 13 steps" in err) == (1, "", True)


def test_what_cannot_be_written_ends_nothing(asked: Asked, service: Service, tmp_path: Path) -> None:
    code, out, err = asked("m", "export", 7, tmp_path / "nowhere" / "seven", "--end")
    assert (code, out, "cannot be written: No such file or directory" in err) == (1, "", True)
    assert not any(isinstance(each, pb.EndRequest) for each in service.seen)


def test_an_import_sends_the_file_as_it_is(asked: Asked, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "seven"
    file.write_bytes(b"\0anything")
    assert asked("m", "import", file)[:2] == (0, "sequence 7 of m goes on in version 2 after 12 steps\n")
    assert asked("m", "import", file, "--replace", "--any-weights")[0] == 0
    assert service.seen == [
        pb.ImportRequest(model="m", file=b"\0anything"),
        pb.ImportRequest(model="m", file=b"\0anything", replace=True, any_weights=True),
    ]
    code, _, err = asked("m", "import", tmp_path / "nowhere")
    assert (code, "cannot be read" in err) == (2, True)
