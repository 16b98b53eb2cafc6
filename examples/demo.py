"""Serves every model of the demo with each backend in turn, predicts the test data with the unmodified client, and
shows what the server measured about itself.

    python examples/demo.py --repository model_repository --client-python .envs/client/bin/python

At the end a server with a store of sequences is killed in the middle of a forecast, which goes on in the next one.

`make demo` trains and exports first. The clients run in an environment of their own, as a user's would: `predict.py`
tells speakers by whole utterances, `forecast.py` forecasts a year day by day over one stream, as a sequence whose state
the server keeps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latency import buckets, quantile

from models import problems
from models.problems import Problem
from models.scoring import mean_absolute_errors
from serving import backends
from serving.launch import LaunchedServer
from serving.telemetry.timeline import STAGES

VOWELS = ("vowels_torch", "vowels_keras")
WEATHER = ("weather_torch", "weather_keras")
KILLED, KILLED_BACKEND = "weather_torch", "onnx_runtime"
SHOWN_UTTERANCES = 12
SHOWN_DAYS = 6
QUANTILES = (0.5, 0.9, 0.99)
TOLERANCE = 1e-5  # relative and absolute, between days that came one by one and all days at once


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve, predict, measure; with each backend in turn.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--client-python", required=True, help="interpreter of an environment with tritonclient")
    asked = parser.parse_args()
    vowels, weather = problems.vowels(), problems.weather()
    with tempfile.TemporaryDirectory() as folder:
        utterances, days = Path(folder) / "utterances.npz", Path(folder) / "days.npz"
        write_utterances(vowels, utterances)
        write_days(weather, days)
        print(f"Japanese Vowels: {len(vowels.test)} test utterances of 9 speakers, 7 to 29 steps of 12 features,")
        print("each sent as a request of its own length, four in flight.")
        period = weather.data["parts"]["test"]
        print(
            f"Weather of Seattle: every day from {period['first']} to {period['last']} as one sequence, a message a day, the"
        )
        print("state kept by the server; temp_max is forecast one and three days ahead.")
        accuracies, errors = {}, {}
        for backend in backends.PREFERENCE:
            print(f"\n=== {backend} ===")
            with LaunchedServer(asked.repository, "--backend", backend, "--stateful", ",".join(WEATHER)) as server:
                for model in VOWELS:
                    labels = asked.repository / model / "labels.txt"
                    answer = ask(asked.client_python, "predict.py", server.address, model, utterances, labels)
                    accuracies[backend, model] = show_predictions(model, answer)
                for model in WEATHER:
                    answer = ask(asked.client_python, "forecast.py", server.address, model, days)
                    errors[backend, model] = show_forecasts(model, weather, np.array(answer["forecasts"]))
                    show_continuation(weather, answer)
                print_latencies(backend, server.metrics())
                code = server.stop()
            print(f"the server stopped cleanly (exit code {code})" if code == 0 else f"the server ended with {code}")
            if code:
                return 1
    print_accuracies(accuracies)
    print_errors(errors, weather)
    show_kill(asked.repository, asked.client_python, weather)
    return 0


def write_utterances(vowels: Problem, path: Path) -> None:
    """Writes the test part as `predict.py` reads it."""
    utterances = {str(i): sequence for i, sequence in enumerate(vowels.test.sequences)}
    np.savez(path, speakers=np.array(vowels.test.targets), **utterances)


def write_days(weather: Problem, path: Path) -> None:
    """Writes the test part as `forecast.py` reads it; the days before it that have no target warm the state up."""
    (days,), (targets,) = weather.test.sequences, weather.test.targets
    np.savez(path, days=days, warm_up=np.isfinite(targets).any(axis=1).argmax())


def ask(python: str, client: str, *arguments: object) -> Any:
    """What this client, run by the other environment's interpreter, prints as JSON."""
    command = [python, str(Path(__file__).with_name(client)), *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def show_predictions(model: str, answer: Mapping[str, Sequence[str]]) -> float:
    """Prints some predictions and the right ones by speaker; returns the accuracy."""
    pairs = list(zip(answer["predicted"], answer["true"], strict=True))
    right = sum(predicted == true for predicted, true in pairs)
    step = len(pairs) // SHOWN_UTTERANCES
    shown = pairs[::step][:SHOWN_UTTERANCES]
    print(f"\n{model}: accuracy through the server {right / len(pairs):.4f} ({right} of {len(pairs)})")
    print("  every " + f"{step}th utterance   predicted  " + " ".join(predicted for predicted, _ in shown))
    print(" " * 21 + "true speaker  " + " ".join(true for _, true in shown))
    said = Counter(true for _, true in pairs)
    hits = Counter(true for predicted, true in pairs if predicted == true)
    print(
        "  right by speaker     " + "  ".join(f"{speaker}: {hits[speaker]}/{said[speaker]}" for speaker in sorted(said))
    )
    return right / len(pairs)


def show_forecasts(model: str, weather: Problem, forecasts: np.ndarray) -> Sequence[float]:
    """Prints some forecasts beside what came; returns the mean absolute error of each output."""
    errors = mean_absolute_errors(forecasts, weather.test.targets[0])
    told = ", ".join(f"{name} {error:.3f} C" for name, error in zip(weather.outputs, errors, strict=True))
    print(f"\n{model}: mean absolute error through the server: {told}")
    scored = np.flatnonzero(np.isfinite(weather.test.targets[0]).all(axis=1))
    shown = scored[:: len(scored) // SHOWN_DAYS][:SHOWN_DAYS]
    for output, name in enumerate(weather.outputs):
        for what, values in (("forecast", forecasts), ("came", weather.test.targets[0])):
            print(f"  {name:<12}{what:<10}" + "".join(f"{values[day, output]:>8.1f}" for day in shown))
    return list(errors)


def show_continuation(weather: Problem, answer: Mapping[str, Any]) -> None:
    """Prints the forecast after the last day of the sequence beside that of one request with all days. Raises if they differ."""
    streamed, whole = np.array(answer["forecasts"]), np.array(answer["whole"])
    apart = np.abs(streamed - whole).max()
    told = (f"{answer['messages']} messages", "one request")
    print(f"  {'the last day':<22}" + "".join(f"{what:>14}" for what in told))
    for name, *values in zip(weather.outputs, streamed[-1], whole[-1], strict=True):
        print(f"  {name:<12}{'forecast':<10}" + "".join(f"{value:>14.4f}" for value in values))
    print(f"  all {len(whole)} days: at most {apart:.1e} C apart")
    if not np.allclose(streamed, whole, rtol=TOLERANCE, atol=TOLERANCE):
        raise SystemExit(
            f"demo: the sequence and the whole request differ by {apart:.1e} C; at most {TOLERANCE:g} is allowed"
        )


def show_kill(repository: Path, python: str, weather: Problem) -> None:
    """Kills a server in the middle of a forecast and starts another one on its store. Raises if a forecast differs by a bit."""
    (days,) = weather.test.sequences
    print(f"\n=== kill -9 in the middle of a forecast ({KILLED_BACKEND}, --sequence-store) ===")
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps.npy"
        np.save(steps, days)
        flags = ("--backend", KILLED_BACKEND, "--stateful", KILLED, "--sequence-store", f"file:{folder}/store")
        with LaunchedServer(repository, *flags) as server:
            port = server.address.rpartition(":")[2]
            client = [python, str(Path(__file__).with_name("sequence_client.py")), server.address, KILLED, str(steps)]
            whole = subprocess.run(client, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
            with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as asking:
                assert asking.stdout
                told = [asking.stdout.readline().rstrip() for _ in range(len(days) // 3)]
                server.process.kill()
                server.process.wait()
                began = time.monotonic()
                with LaunchedServer(repository, *flags, "--grpc-port", port) as following:
                    seconds = time.monotonic() - began
                    told += asking.stdout.read().splitlines()
                    after = following.metrics()
    went_on = int(buckets(after, "lstm_serving_request_duration_seconds", model=KILLED)[-1][1])
    print(
        f"{KILLED}: {len(days)} days, a message a day; the server was killed after {len(days) // 3} of them had been read."
    )
    print(
        f"The next one was ready after {seconds:.1f} s and answered the last {went_on} of them, in the same sequence."
    )
    if told != whole or asking.returncode or not went_on:
        raise SystemExit(
            f"demo: the forecast that was broken off is another one than without: {len(told)} days of {len(whole)}"
        )
    print("Every forecast is bit for bit that of a server which nobody kills.")


def print_latencies(backend: str, metrics: str) -> None:
    """The table of this backend: stages and the whole, for each model, from the histograms in /metrics."""
    print(f"\nlatency inside the server, {backend} (milliseconds, from its Prometheus histograms)")
    print(f"  {'model':<14}{'':>6}" + "".join(f"{stage:>10}" for stage in (*STAGES, "request")))
    for model in (*VOWELS, *WEATHER):
        series = [buckets(metrics, "lstm_serving_stage_duration_seconds", model=model, stage=stage) for stage in STAGES]
        series.append(buckets(metrics, "lstm_serving_request_duration_seconds", model=model))
        for share in QUANTILES:
            values = "".join(f"{quantile(share, pairs) * 1000:>10.3f}" for pairs in series)
            print(f"  {model:<14}{f'p{share * 100:g}':>6}{values}")


def print_accuracies(accuracies: Mapping[tuple[str, str], float]) -> None:
    """Accuracy of every model in every backend: the same number in each column, or something is wrong."""
    print("\naccuracy through the server (Japanese Vowels)")
    print(f"  {'':<14}" + "".join(f"{backend:>14}" for backend in backends.PREFERENCE))
    for model in VOWELS:
        print(f"  {model:<14}" + "".join(f"{accuracies[backend, model]:>14.4f}" for backend in backends.PREFERENCE))


def print_errors(errors: Mapping[tuple[str, str], Sequence[float]], weather: Problem) -> None:
    """Errors of every model in every backend, and of the answers that need no network."""
    plain = {
        name: mean_absolute_errors(answers, weather.test.targets[0]) for name, answers in weather.baselines.items()
    }
    print("\nmean absolute error in C through the server (weather of Seattle)")
    print(f"  {'':<28}" + "".join(f"{column:>14}" for column in (*backends.PREFERENCE, *plain)))
    for model in WEATHER:
        for output, name in enumerate(weather.outputs):
            values = [errors[backend, model][output] for backend in backends.PREFERENCE]
            values += [baseline[output] for baseline in plain.values()]
            print(f"  {model:<16}{name:<12}" + "".join(f"{value:>14.3f}" for value in values))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; run it again to go on")
