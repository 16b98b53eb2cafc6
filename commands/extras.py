"""What is missing of what the extras of the installation bring, in one sentence with the one command that repairs it.

A command says all that it needs before it begins, so that who lacks three packages is told once and not three times.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

Need = tuple[str, str]  # an extra, and a package that it brings, by the name that is imported

FRAMEWORKS: dict[str, tuple[Need, ...]] = {
    "torch": (("torch", "torch"),),
    "keras": (("tensorflow", "tensorflow"),),  # Keras and h5py come with it
}
ARRAYS_ON_DISK: Need = ("train", "safetensors")
TRAINING: tuple[Need, ...] = (("train", "matplotlib"), ARRAYS_ON_DISK, ("train", "tqdm"))
LOAD_TEST: tuple[Need, ...] = (("loadtest", "hdrh"), ("loadtest", "tqdm"))
FORMATS: dict[str, tuple[Need, ...]] = {  # what writes a file, and what it is run with to prove it
    "onnx": (("train", "onnx"), ("onnx", "onnxruntime")),
    "torchscript": FRAMEWORKS["torch"],
    "savedmodel": FRAMEWORKS["keras"],
}
_DISTRIBUTIONS = {"hdrh": "hdrhistogram"}  # what is installed under another name than it is imported by


class PackagesMissing(ModuleNotFoundError):
    """Packages that are not installed; the message is the whole sentence."""


def of_network(framework: str, weights: Path | None = None) -> tuple[Need, ...]:
    """What a user's network needs to be built in that framework, and its weights to be read."""
    kept_apart = framework == "torch" and weights is not None and weights.suffix == ".safetensors"
    return (*FRAMEWORKS[framework], *([ARRAYS_ON_DISK] if kept_apart else []))


def missing(needs: Iterable[Need]) -> str:
    """The sentence about the packages of `needs` that are not installed, "" if all of them are. Imports nothing."""
    lacking = sorted({(extra, package) for extra, package in needs if importlib.util.find_spec(package) is None})
    if not lacking:
        return ""
    *others, last = sorted({_DISTRIBUTIONS.get(package, package) for _, package in lacking})
    names = f"the packages {', '.join(others)} and {last} are" if others else f"the package {last} is"
    return f"{names} not installed: {repair(extra for extra, _ in lacking)}"


def require(needs: Iterable[Need]) -> None:
    """Raises `PackagesMissing` unless every package of `needs` is installed."""
    if sentence := missing(needs):
        raise PackagesMissing(sentence)


def repair(extras: Iterable[str]) -> str:
    """The command that installs them."""
    return f"pip install 'lstm-serving[{','.join(sorted(set(extras)))}]'"


def told(error: ModuleNotFoundError) -> str:
    """What a command says of an import that fails: what `require` has found, or else a package that another one needs."""
    if isinstance(error, PackagesMissing):
        return str(error)
    return f"{error}, which a package that is installed needs; pip check says which one, and what to install"
