"""The benchmark of sequences: its two parts of a page, what its client sends, and which Triton counts."""

from __future__ import annotations

from pathlib import Path

from benchmarks import sequences, sequences_client
from benchmarks.peers.measured import Figures, Measured
from benchmarks.peers.server import OURS
from benchmarks.sequences import CLOSED, DIRECT, OLDEST, Load
from protos import grpc_service_pb2 as pb


def test_each_part_is_replaced_and_what_people_wrote_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n\nwords\n")
    for real, part in ((True, "first"), (False, "cost"), (True, "second")):
        sequences.write(page, part, real=real)
    assert page.read_text().startswith("# Mine\n\nwords\n\n<!-- ")
    lines = [line for line in page.read_text().splitlines() if line and not line.startswith("<!--")]
    assert lines == ["# Mine", "words", "cost", "second"]


def test_the_better_of_both_strategies_counts_within_each_round() -> None:
    load = Load(CLOSED, 1)
    measured: Measured[Load] = Measured(2)
    for number, (ours, oldest, direct) in enumerate(((50, 100, 200), (60, 100, 300))):
        for name, cpu in ((OURS, ours), (OLDEST, oldest), (DIRECT, direct)):
            measured.add(name, load, number, Figures(cpu_us=cpu, requests=10))
    page = sequences.render(measured, 2.0, [load])
    assert "| closed loop, 1 step a message | 55 | 100 | 250 | **0.55** | - | - | - | - |" in page
    measured.failures[DIRECT, load] = "it has died\nof something"
    assert f"{DIRECT} did not live through every run" in sequences.render(measured, 2.0, [load])
    del measured.figures[DIRECT, load]
    assert f"{DIRECT}, {load}: it has died" in sequences.render(measured, 2.0, [load])


def test_a_sequence_starts_goes_on_ends_and_is_another_one_then() -> None:
    sent = sequences_client.Sequences(pb.ModelInferRequest(model_name="m").SerializeToString(), 2, 3)
    steps = [pb.ModelInferRequest.FromString(sent.next(1)) for _ in range(4)]
    said = [
        (
            step.parameters["sequence_id"].int64_param,
            "sequence_start" in step.parameters,
            "sequence_end" in step.parameters,
        )
        for step in steps
    ]
    assert said == [(2, True, False), (2, False, False), (2, False, True), (4, True, False)]
    assert sent.begun(1)
    assert not sent.begun(0)
    last = pb.ModelInferRequest.FromString(sent.next(1, last=True))
    assert last.parameters["sequence_end"].bool_param
    assert not sent.begun(1)
