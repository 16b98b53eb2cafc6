"""Serves every model of the demo with each backend in turn, predicts the test utterances with the unmodified client,
and shows what the server measured about itself.

    python examples/demo.py --repository model_repository --client-python .envs/client/bin/python

`make demo` trains and exports first. The client runs in an environment of its own (`examples/predict.py`), as a user's
would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
from latency import buckets, quantile

from models.ts_files import read_ts
from serving import backends
from serving.launch import LaunchedServer
from serving.timeline import STAGES

MODELS = ("vowels_torch", "vowels_keras")
SHOWN_UTTERANCES = 12
QUANTILES = (0.5, 0.9, 0.99)


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve, predict, measure; with each backend in turn.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--client-python", required=True, help="interpreter of an environment with tritonclient")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        utterances = Path(folder) / "utterances.npz"
        count = write_test_utterances(utterances)
        print(f"Japanese Vowels: {count} test utterances of 9 speakers, 7 to 29 steps of 12 features,")
        print("each sent as a request of its own length, four in flight.")
        summary = {}
        for backend in backends.PREFERENCE:
            print(f"\n=== {backend} ===")
            with LaunchedServer(asked.repository, "--backend", backend) as server:
                for model in MODELS:
                    answer = predict(asked.client_python, server.address, model, utterances, asked.repository)
                    summary[backend, model] = show_predictions(model, answer)
                print_latencies(backend, server.metrics())
                code = server.stop()
            print(f"the server stopped cleanly (exit code {code})" if code == 0 else f"the server ended with {code}")
            if code:
                return 1
    print_summary(summary)
    return 0


def write_test_utterances(path: Path) -> int:
    """Writes the test part as `predict.py` reads it; returns how many utterances there are."""
    with resources.as_file(resources.files("models") / "data" / "JapaneseVowels_TEST.ts") as file:
        test = read_ts(file)
    np.savez(path, speakers=test.classes, **{str(i): sequence for i, sequence in enumerate(test.sequences)})
    return len(test.sequences)


def predict(python: str, address: str, model: str, utterances: Path, repository: Path) -> dict[str, list[str]]:
    """What the client saw: predicted and true speakers, in the order of the utterances."""
    client = Path(__file__).with_name("predict.py")
    labels = repository / model / "labels.txt"
    command = [python, str(client), address, model, str(utterances), str(labels)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def show_predictions(model: str, answer: dict[str, list[str]]) -> float:
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


def print_latencies(backend: str, metrics: str) -> None:
    """The table of this backend: stages and the whole, for each model, from the histograms in /metrics."""
    print(f"\nlatency inside the server, {backend} (milliseconds, from its Prometheus histograms)")
    print(f"  {'model':<14}{'':>6}" + "".join(f"{stage:>10}" for stage in (*STAGES, "request")))
    for model in MODELS:
        series = [buckets(metrics, "lstm_serving_stage_duration_seconds", model=model, stage=stage) for stage in STAGES]
        series.append(buckets(metrics, "lstm_serving_request_duration_seconds", model=model))
        for share in QUANTILES:
            values = "".join(f"{quantile(share, pairs) * 1000:>10.3f}" for pairs in series)
            print(f"  {model:<14}{f'p{share * 100:g}':>6}{values}")


def print_summary(summary: dict[tuple[str, str], float]) -> None:
    """Accuracy of every model in every backend: the same number in each column, or something is wrong."""
    print("\naccuracy through the server")
    print(f"  {'':<14}" + "".join(f"{backend:>14}" for backend in backends.PREFERENCE))
    for model in MODELS:
        print(f"  {model:<14}" + "".join(f"{summary[backend, model]:>14.4f}" for backend in backends.PREFERENCE))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; run it again to go on")
