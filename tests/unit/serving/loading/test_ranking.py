"""Which candidates there are, which of them wins, and what people are shown, as tables."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from serving.backends.base import Candidate, Measured
from serving.loading.ranking import candidates, chosen, ranked, table

ONNX, TORCH, TF = "onnx_runtime", "torchscript", "saved_model"


@pytest.mark.parametrize(
    ("threads", "cpus", "expected"),
    [
        (None, 1, [1]),
        (None, 2, [1, 2]),
        (None, 6, [1, 2, 4, 6]),
        (None, 8, [1, 2, 4, 8]),
        (3, 2, [3]),
    ],
)
def test_threads_that_fit_the_machine(threads: int | None, cpus: int, expected: list[int]) -> None:
    assert [candidate.threads for candidate in candidates([ONNX], ["cpu"], threads, cpus)] == expected


def test_every_format_on_every_device_and_a_gpu_with_one_number_of_threads() -> None:
    assert candidates([ONNX, TORCH], ["cuda:0", "cpu"], None, 2) == [
        *(Candidate(ONNX, "cuda:0", 1), Candidate(ONNX, "cpu", 1), Candidate(ONNX, "cpu", 2)),
        *(Candidate(TORCH, "cuda:0", 1), Candidate(TORCH, "cpu", 1), Candidate(TORCH, "cpu", 2)),
    ]
    assert candidates([], ["cpu"], None, 2) == []


def case(name: str, one: float, most: float, *, device: str = "cpu", threads: int = 1) -> Measured:
    """Microseconds of a call with 1 row and with 32."""
    return Measured(Candidate(name, device, threads), {1: one / 1e6, 8: 1.0, 32: most / 1e6})


FAILED = Measured(Candidate(ONNX, "cuda:0", 1), failed="no GPU")


def by_chance(name: str) -> Measured:
    return Measured(Candidate(name, "cpu", 1), failed="ended by somebody", by_chance=True)


@pytest.mark.parametrize(
    ("optimize_for", "measured", "order"),
    [
        pytest.param("latency", [case(ONNX, 70, 900), case(TORCH, 200, 300)], [0, 1], id="the least time for a row"),
        pytest.param("throughput", [case(ONNX, 70, 900), case(TORCH, 200, 300)], [1, 0], id="the most rows a second"),
        pytest.param("latency", [FAILED, case(TF, 400, 1), case(ONNX, 70, 1)], [2, 1, 0], id="failed ones last"),
        pytest.param("latency", [case(TF, 100, 1), case(ONNX, 104.9, 1)], [1, 0], id="within 5 %, by preference"),
        pytest.param("latency", [case(TF, 100, 1), case(ONNX, 105.1, 1)], [0, 1], id="beyond 5 %, by time"),
        pytest.param(
            "latency",
            [case(ONNX, 100, 1, threads=2), case(TF, 104, 1, threads=1)],
            [1, 0],
            id="fewer threads before preference",
        ),
        pytest.param(
            "throughput",
            [case(ONNX, 1, 100, device="cuda:0"), case(TORCH, 1, 104)],
            [1, 0],
            id="the CPU before preference",
        ),
        pytest.param(
            "latency",
            [case(ONNX, 108, 1), case(TORCH, 104, 1), case(TF, 100, 1)],
            [1, 2, 0],
            id="alike is said of the best, not of neighbours",
        ),
        pytest.param(
            "latency",
            [case(TF, 100, 1), case(TORCH, 208, 1), case(ONNX, 210, 1)],
            [0, 2, 1],
            id="the rest is ranked by the same rule",
        ),
        pytest.param("latency", [], [], id="nothing"),
        pytest.param("throughput", [FAILED], [0], id="nothing that serves"),
    ],
)
def test_ranking(optimize_for: Literal["latency", "throughput"], measured: list[Measured], order: list[int]) -> None:
    assert ranked(measured, optimize_for) == [measured[position] for position in order]


@pytest.mark.parametrize(
    ("measured", "brought_in", "expected"),
    [
        pytest.param([case(ONNX, 100, 1)], "", ONNX, id="nothing to compare with"),
        pytest.param([case(ONNX, 149, 1), case(TORCH, 100, 1)], "", ONNX, id="49 % do not pay for a framework"),
        pytest.param([case(ONNX, 151, 1), case(TORCH, 100, 1)], "", TORCH, id="51 % do"),
        pytest.param([case(ONNX, 109, 1), case(TORCH, 100, 1)], TORCH, ONNX, id="9 % pay for nothing"),
        pytest.param([case(ONNX, 111, 1), case(TORCH, 100, 1)], TORCH, TORCH, id="11 % where it is there already"),
        pytest.param(
            [case(ONNX, 130, 1), case(TORCH, 100, 1), case(TF, 90, 1)], TORCH, TORCH, id="the best that is worth it"
        ),
        pytest.param([case(ONNX, 200, 1), case(TORCH, 100, 1), case(TF, 90, 1)], TORCH, TF, id="the best of all"),
        pytest.param([case(TORCH, 100, 1), case(TF, 90, 1)], "", ONNX, id="of who serves nothing is known"),
        pytest.param(
            [Measured(Candidate(ONNX, "cpu", 1), failed="damaged"), case(TF, 90, 1)], "", TF, id="who serves fails"
        ),
        pytest.param([Measured(Candidate(ONNX, "cpu", 1), failed="damaged")], "", ONNX, id="nobody can"),
        pytest.param([by_chance(ONNX), case(TF, 90, 1)], TF, ONNX, id="who serves could not be measured by chance"),
        pytest.param(
            [case(ONNX, 200, 1), by_chance(TF)],
            TF,
            ONNX,
            id="who else could not",
        ),
        pytest.param([], "", ONNX, id="nothing at all"),
    ],
)
def test_who_is_to_serve_instead_of_onnx_runtime(measured: list[Measured], brought_in: str, expected: str) -> None:
    best_first, onnx = ranked(measured, "latency"), Candidate(ONNX, "cpu", 1)
    assert chosen(best_first, onnx, "latency", lambda name: name == brought_in).backend == expected


@pytest.mark.parametrize(
    ("serving", "other", "pays"),
    [
        pytest.param({}, {"threads": 4}, 151, id="threads are missing to others"),
        pytest.param({"threads": 4}, {"threads": 1}, 111, id="fewer are not"),
        pytest.param({}, {"device": "cuda:0"}, 111, id="a GPU brings no framework"),
    ],
)
def test_more_threads_pay_if_they_are_much_better(serving: dict[str, Any], other: dict[str, Any], pays: int) -> None:
    better = case(ONNX, 100, 1, **other)
    for microseconds, expected in ((pays - 2, False), (pays, True)):
        now = case(ONNX, microseconds, 1, **serving)
        found = chosen(ranked([now, better], "latency"), now.candidate, "latency", lambda name: False)
        assert (found == better.candidate) is expected


def test_who_is_to_serve_depends_on_the_aim() -> None:
    figures = [case(ONNX, 100, 400), case(TORCH, 200, 100)]
    for aim, expected in (("latency", ONNX), ("throughput", TORCH)):
        best_first = ranked(figures, aim)  # type: ignore[arg-type]
        assert chosen(best_first, Candidate(ONNX, "cpu", 1), aim, lambda name: False).backend == expected  # type: ignore[arg-type]


def test_a_model_of_one_row_is_ranked_by_one_row() -> None:
    slow, fast = (Measured(Candidate(name, "cpu", 1), {1: seconds}) for name, seconds in ((ONNX, 0.2), (TF, 0.1)))
    assert ranked([slow, fast], "throughput") == ranked([slow, fast], "latency") == [fast, slow]


def test_the_table() -> None:
    measured = [case(ONNX, 45.62, 459.4), case(TORCH, 12345, 32e6, threads=16), FAILED, by_chance(TF)]
    assert table(measured, measured[0].candidate).splitlines() == [
        "   backend       device  threads  us, 1 row  us, 8 rows  us, 32 rows  rows/s at 32",
        "*  onnx_runtime  cpu           1       45.6     1000000          459         69656",
        "   torchscript   cpu          16      12345     1000000     32000000             1",
        "   onnx_runtime  cuda:0        1  cannot serve: no GPU",
        "   saved_model   cpu           1  could not be measured: ended by somebody",
    ]


def test_a_table_of_nothing_that_serves() -> None:
    assert table([FAILED], None).splitlines() == [
        "  backend       device  threads",
        "  onnx_runtime  cuda:0        1  cannot serve: no GPU",
    ]
