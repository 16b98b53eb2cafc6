"""What the README and the pages for beginners show works as pasted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from models.config import LSTMConfig
from serving.__main__ import parser
from serving.launch import LaunchedServer
from tests.support import real_model, trained
from tests.support.commands import ROOT
from tests.support.pages import blocks
from tests.support.running import metric
from tests.support.trained import Trained

FORECASTS = LSTMConfig(input="features", features=6, hidden=8, outputs=2, head="values_per_step")


def pasted(page: str, server: LaunchedServer, client_python: str) -> str:
    """What the one example of a page prints."""
    (example,) = blocks(ROOT / page, "python")
    return printed(example, server, client_python)


def printed(example: str, server: LaunchedServer, client_python: str) -> str:
    """What an example prints, run in the client's own environment against this server."""
    assert "127.0.0.1:8001" in example
    code = example.replace("127.0.0.1:8001", server.address)
    done = subprocess.run([client_python, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stateful(vowels: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedServer]:
    """The trained models, and in place of the forecasting one a network of its signature, whose state the server keeps."""
    folder = tmp_path_factory.mktemp("forecasts")
    real_model.write(folder, ("onnx_runtime",), name="weather_torch", config=FORECASTS)
    flags = ("--model-repository", str(folder), "--backend", "onnx_runtime", "--stateful", "weather_torch")
    with LaunchedServer(vowels.repository, *flags) as running:
        yield running


def test_the_readme_answers_a_probability_for_each_speaker(server: LaunchedServer, client_python: str) -> None:
    example, _ = blocks(ROOT / "README.md", "python")
    assert len(printed(example, server, client_python).strip(" []\n").split()) == 9


def test_the_readme_begins_a_sequence(stateful: LaunchedServer, client_python: str) -> None:
    printed("".join(blocks(ROOT / "README.md", "python")), stateful, client_python)
    assert metric(stateful, "sequences_live", model="weather_torch") == 1


@pytest.mark.parametrize("example", blocks(ROOT / "docs/sequences.md", "python"), ids=lambda text: text.splitlines()[0])
def test_what_the_page_of_sequences_shows(example: str, stateful: LaunchedServer, client_python: str) -> None:
    """Those that compare print how far apart two answers are."""
    before = metric(stateful, "sequence_steps_total", model="weather_torch")
    told = printed(example, stateful, client_python)
    assert metric(stateful, "sequence_steps_total", model="weather_torch") > before
    assert "Exception" not in told
    if "the same\n" in example:
        assert float(told) == pytest.approx(0, abs=1e-5)


def test_getting_started_answers_the_three_best_speakers_of_each_row(
    server: LaunchedServer, client_python: str
) -> None:
    lines = [eval(line) for line in pasted("docs/getting-started.md", server, client_python).splitlines()]  # noqa: S307
    assert [len(line) for line in lines] == [3, 3]
    for line in lines:
        probabilities = [float(text.split(":")[0]) for text in line]
        assert probabilities == sorted(probabilities, reverse=True)


def test_pieces_of_a_sequence_end_in_the_state_of_the_whole(server: LaunchedServer, client_python: str) -> None:
    assert float(pasted("docs/requests.md", server, client_python)) == pytest.approx(0, abs=1e-5)


def test_the_way_from_training_to_serving(vowels: Trained) -> None:
    """Its command has trained one of the models that all these tests share."""
    _, export, serve = trained.from_getting_started()
    trained.command(*export, folder=vowels.folder)
    asked = parser().parse_args(serve[1:])
    with LaunchedServer(vowels.folder / asked.model_repository[0], "--backend", asked.backend) as server:
        loaded = server.wait_for("loaded", 1)
        assert (loaded["model"], loaded["backend"]) == ("speakers", "saved_model")
