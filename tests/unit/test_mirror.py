"""tests/unit has the packages' own folders, and each test file there belongs to a source file: x/y.py to x/test_y.py.

A file may have several tests, test_y_aspect.py. A source file may be without one where it decides nothing, or where it is
seen only together with others; then it stands below, with the reason and the test that sees it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = Path(__file__).parent
PACKAGES = ("admin", "commands", "export", "loadtest", "lstm_serving", "models", "reference_pages", "serving")
# Source files without a test of their own, and why. A folder's __init__.py needs one only where it defines something.
EXCEPTIONS = {
    "export/errors.py": "one exception class",
    "export/writers/onnx_writer.py": "its files are run by every runtime: tests/contract/test_matrix.py, test_writers.py",
    "export/writers/savedmodel_writer.py": "its files are run by every runtime: tests/contract/test_matrix.py, test_writers.py",
    "export/writers/torchscript_writer.py": "its files are run by every runtime: tests/contract/test_matrix.py, test_writers.py",
    "loadtest/__main__.py": "sets the environment for a process of its own: tests/integration/test_loadtest.py",
    "loadtest/calls.py": "drives the core of gRPC against a real server: tests/integration/test_loadtest.py",
    "loadtest/errors.py": "two exception classes",
    "loadtest/measure.py": "a clock, two threads and a real server: tests/integration/test_loadtest.py",
    "loadtest/streams.py": "drives the core of gRPC against a real server: tests/integration/test_loadtest.py",
    "models/keras_training.py": "both trainers are held to one loop: test_training.py, test_training_frameworks_agree.py",
    "models/torch_training.py": "both trainers are held to one loop: test_training.py, test_training_frameworks_agree.py",
    "serving/backends/onnx_runtime.py": "each backend keeps one contract: tests/contract/test_backends.py, test_matrix.py",
    "serving/backends/saved_model.py": "each backend keeps one contract: tests/contract/test_backends.py, test_matrix.py",
    "serving/backends/torchscript.py": "each backend keeps one contract: tests/contract/test_backends.py, test_matrix.py",
    "serving/batching/following.py": "two protocols, kept by lifecycle/shadow.py: test_shadow.py",
    "serving/batching/in_lane.py": "what is in a lane, and what is to be done with it: test_lanes.py",
    "serving/batching/policy.py": "plain data, decided on by test_plan.py and read by test_model_config.py",
    "serving/edge/grpc_calls.py": "what calls share: test_grpc_unary.py, test_grpc_watch.py, test_grpc_message_streams.py",
    "serving/edge/grpc_server.py": "each edge keeps one contract: tests/contract/test_edges.py and beside it",
    "serving/edge/grpc_streams.py": "each edge keeps one contract: tests/contract/test_edges_streams.py",
    "serving/edge/grpc_tls.py": "each edge keeps one contract: tests/contract/test_edges_tls.py",
    "serving/errors.py": "a tree of classes; test_codes.py has a code for each",
    "serving/launch.py": "starts a server as a child: tests/integration/test_server_life.py",
    "serving/protocol/asked.py": "one request of Inference: test_inference.py",
    "serving/sequences/counts.py": "plain counts, kept by live.py: test_live.py",
    "serving/sequences/disk.py": "a protocol, kept by file_disk.py: test_file_disk.py",
    "serving/sequences/policy.py": "plain data, read by repository/stateful.py and state_layouts.py: test_stateful.py",
    "serving/sequences/step.py": "plain data of live.py: test_live.py",
    "serving/server.py": "puts the rooms together: tests/integration/test_server_life.py",
}


def name_of_test(source: Path) -> str:
    """`test_y` of y.py, `test_main` of __main__.py, and of a package's __init__.py the name of its folder."""
    plain = source.parent.name if source.name == "__init__.py" else source.stem.strip("_")
    return f"test_{plain}"


def sources(package: str) -> list[Path]:
    """Every source file that decides something, relative to the root; the docstring of an __init__.py alone decides nothing."""
    found = sorted((ROOT / package).rglob("*.py"))
    return [path.relative_to(ROOT) for path in found if path.name != "__init__.py" or defines(path)]


def defines(path: Path) -> bool:
    """Whether a file has a function or a class."""
    return any(line.startswith(("def ", "class ")) for line in path.read_text(encoding="utf-8").splitlines())


def files_of_tests(package: str) -> list[Path]:
    """Every test file of the package, relative to tests/unit."""
    return [path.relative_to(UNIT) for path in sorted((UNIT / package).rglob("test_*.py"))]


def belongs(test: Path, source: Path) -> bool:
    """Whether `test` is `source`'s, or of one aspect of it."""
    name = name_of_test(source)
    return test.parent == source.parent and (test.stem == name or test.stem.startswith(f"{name}_"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_test_file_mirrors_a_source_file(package: str) -> None:
    strays = [
        str(test) for test in files_of_tests(package) if not any(belongs(test, source) for source in sources(package))
    ]
    assert strays == [], "name each after a source file of the same folder: test_y.py or test_y_aspect.py of y.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_source_file_has_a_test_or_a_reason(package: str) -> None:
    untested = {
        str(source) for source in sources(package) if not any(belongs(test, source) for test in files_of_tests(package))
    }
    excepted = {path for path in EXCEPTIONS if Path(path).parts[0] == package}
    assert untested - excepted == set(), "write a test for each, or say in EXCEPTIONS why it has none and what sees it"
    assert excepted - untested == set(), "these have a test, or are gone: take them out of EXCEPTIONS"


def test_exceptions_are_of_these_packages_and_name_tests_that_there_are() -> None:
    assert {Path(path).parts[0] for path in EXCEPTIONS} <= set(PACKAGES)
    named = {name for reason in EXCEPTIONS.values() for name in re.findall(r"test_\w+\.py", reason)}
    assert named - {path.name for path in (ROOT / "tests").rglob("test_*.py")} == set()


@pytest.mark.parametrize(
    ("test", "source", "its"),
    [
        ("a/test_y.py", "a/y.py", True),
        ("a/test_y_on_a_gpu.py", "a/y.py", True),
        ("a/test_yy.py", "a/y.py", False),
        ("a/b/test_y.py", "a/y.py", False),
        ("a/test_main.py", "a/__main__.py", True),
        ("a/b/test_b.py", "a/b/__init__.py", True),
    ],
)
def test_what_belongs_to_what(test: str, source: str, its: bool) -> None:
    assert belongs(Path(test), Path(source)) == its
