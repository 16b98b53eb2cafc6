"""Flags, their environment variables, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import __main__ as command
from serving.errors import StartupError
from serving.settings import Settings


def parsed(*line: str, **environment: str) -> dict[str, object]:
    return vars(command.parser().parse_args(command.arguments(["--model-repository", "r", *line], environment)))


def test_defaults() -> None:
    assert parsed() == {
        "model_repository": [Path("r")],
        "server_name": "lstm-serving",
        "host": "127.0.0.1",
        "grpc_port": 8001,
        "metrics_port": 8002,
        "edge": "auto",
        "grpc_keepalive_time": 120.0,
        "grpc_keepalive_timeout": 20.0,
        "grpc_max_connection_idle": 0.0,
        "grpc_max_connection_age": 0.0,
        "grpc_max_connection_age_grace": 0.0,
        "backend": "auto",
        "device": "cpu",
        "threads": None,
        "optimize_for": "latency",
        "fallback": "runtime",
        "trial": "auto",
        "breaker_failures": 3,
        "breaker_reset": 30.0,
        "sequence_store": "memory",
        "sequence_durability": "process",
        "model_control_mode": "none",
        "repository_poll_secs": 15.0,
        "allow_tf32": False,
        "require_verified": False,
        "row_watch": 0.01,
        "max_steps": 4096,
        "max_message_bytes": 128 * 2**20,
        "auth_health": "token",
        "admin_port": 8003,
        "exit_timeout_seconds": 30.0,
        "access_log": 0.0,
        "log_format": "text",
        "log_level": "info",
    }


def test_the_environment_sets_flags_and_the_command_line_wins() -> None:
    got = parsed("--backend", "saved_model", LSTM_SERVE_GRPC_PORT="9", LSTM_SERVE_BACKEND="torchscript", OTHER="1")
    assert (got["grpc_port"], got["backend"]) == (9, "saved_model")


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_flag() -> None:
    assert (
        parsed(
            LSTM_SERVE_PORT="tcp://10.0.0.1:8001",
            LSTM_SERVE_SERVICE_HOST="10.0.0.1",
            LSTM_SERVE_SERVICE_PORT="8001",
            LSTM_SERVE_SERVICE_PORT_GRPC="8001",
            LSTM_SERVE_PORT_8001_TCP="tcp://10.0.0.1:8001",
            LSTM_SERVE_PORT_8001_TCP_ADDR="10.0.0.1",
            LSTM_SERVE_GRPC_PORT="tcp://10.0.0.2:8001",
        )
        == parsed()
    )


def test_every_flag_has_its_variable() -> None:
    for action in command.parser()._actions:
        if action.dest not in ("help", "version", "model_repository"):
            value = "true" if action.nargs == 0 else action.choices[-1] if action.choices else str(action.default)  # type: ignore[index]
            assert action.dest in parsed(**{f"LSTM_SERVE_{action.dest.upper()}": value})


def test_a_flag_without_a_value_is_a_switch_in_the_environment() -> None:
    assert [parsed(LSTM_SERVE_ALLOW_TF32=value)["allow_tf32"] for value in ("true", "false")] == [True, False]
    with pytest.raises(StartupError, match="LSTM_SERVE_ALLOW_TF32 to 'yes'; it may be true or false"):
        parsed(LSTM_SERVE_ALLOW_TF32="yes")


@pytest.mark.parametrize(
    ("line", "variable", "served"),
    [
        ([], "r", ["r"]),
        ([], "r:s", ["r", "s"]),
        (["--model-repository", "a", "--model-repository=b"], "", ["a", "b"]),
        (["--model-repository=a"], "r:s", ["a"]),
        (["--model-repo", "a"], "r", ["a"]),
        (["--max-steps", "7"], "r", ["r"]),
    ],
)
def test_repositories_by_flags_and_by_the_environment(line: list[str], variable: str, served: list[str]) -> None:
    line = command.arguments(line, {"LSTM_SERVE_MODEL_REPOSITORY": variable})
    assert command.parser().parse_args(line).model_repository == [Path(path) for path in served]


def test_models_that_are_made_stateful_are_named_as_those_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("serving.server.serve", lambda settings: served.append(settings) or 0)
    assert command.main(["--model-repository", "r", "--stateful", "a,b", "--stateful", "c"]) == 0
    assert command.main(["--model-repository", "r"]) == 0
    assert [list(settings.stateful) for settings in served] == [["a", "b", "c"], []]
    assert parsed(LSTM_SERVE_STATEFUL="a,b")["stateful"] == ["a,b"]


def test_where_sequences_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("serving.server.serve", lambda settings: served.append(settings) or 0)
    line = ["--model-repository", "r", "--sequence-durability", "disk"]
    assert command.main([*line, "--sequence-store", "file:/a b/c"]) == 0
    assert [(one.sequence_store, one.sequence_durability) for one in served] == [("file:/a b/c", "disk")]
    assert command.main(line) == 1
    assert "--sequence-durability disk goes with --sequence-store file:PATH" in capsys.readouterr().err


def test_a_variable_that_is_no_flag() -> None:
    with pytest.raises(StartupError, match=r"LSTM_SERVE_PORT, which is no flag; known are .*LSTM_SERVE_GRPC_PORT"):
        parsed(LSTM_SERVE_PORT="1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--grpc-port", "70000"], "'70000' is not a whole number from 0 to 65535"),
        (["--grpc-port", "x"], "'x' is not a whole number from 0 to 65535"),
        (["--backend", "tensorrt"], "invalid choice: 'tensorrt'"),
        (["--device", "gpu"], "'gpu' is not a device; use cpu, cuda:N"),
        (["--device", "cuda:"], "'cuda:' is not a device"),
        (["--server-name", ""], "'' is no name"),
        (["--max-steps", "0"], "'0' is not a whole number from 1 to"),
        (["--access-log", "2"], "'2' is not a share from 0 to 1"),
        (["--sequence-store", "disk"], "'disk' is no store; use memory or file:PATH"),
        (["--sequence-store", "/var/lib/x"], "'/var/lib/x' is no store; use memory or file:PATH"),
        (["--sequence-store", "file:"], "'file:' is no store; use memory or file:PATH"),
        (["--sequence-store", "file: "], "'file: ' is no store; use memory or file:PATH"),
        (["--sequence-durability", "power"], "invalid choice: 'power'"),
        (["--threads", "0"], "'0' is not a whole number from 1 to"),
    ],
)
def test_wrong_values_are_refused(line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*line)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_while_something_is_measured_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.explain.explain", interrupted)
    assert command.main(["--model-repository", str(tmp_path), "--explain", "m"]) == 130
