"""The names of classes, read beside the versions: one a line, in the order of the places in the output.

`label_filename` of an output in `config.pbtxt` names its file, as in Triton. What an exporter of ours knows the classes of
needs no word of the operator: the names are in `labels.txt`, and `spec.json` says of which output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from serving.errors import ModelConfigError
from serving.repository.folders import Repository
from serving.repository.operator_config import OperatorConfig
from serving.signature.spec import LABELS_FILE, ModelSpec

Labels = Mapping[str, tuple[str, ...]]
OF_THE_SPEC = ""  # stands for the output that the specification names


def read(repository: Repository, config: OperatorConfig) -> Labels:
    """The names by output, those of `labels.txt` under `OF_THE_SPEC`. Raises `RepositoryError` for a file that cannot be read."""
    model = config.written.name
    found = {OF_THE_SPEC: repository.labels(model, LABELS_FILE)}
    for output in config.written.output:
        name = output.label_filename
        if not name:
            continue
        path = PurePosixPath(name)
        where = f"config.pbtxt of model '{model}': label_filename of output '{output.name}' is '{name}'"
        if path.is_absolute() or ".." in path.parts:
            raise ModelConfigError(f"{where}; it must be a file in the folder of the model")
        found[output.name] = repository.labels(model, name)
        if not found[output.name]:
            raise ModelConfigError(f"{where}, and {repository.path / model / name} holds no labels: write one a line")
    return {output: names for output, names in found.items() if names}


def of_outputs(labels: Labels, spec: ModelSpec) -> Labels:
    """The names by output, now that it is known which output the exporter's belong to; the operator's come first."""
    named = {output: names for output, names in labels.items() if output != OF_THE_SPEC}
    if spec.labels_of and OF_THE_SPEC in labels:
        named.setdefault(spec.labels_of, labels[OF_THE_SPEC])
    return named


def miscounted(labels: Mapping[str, Sequence[str]], spec: ModelSpec) -> list[str]:
    """A sentence for each output of a known size that has another number of names than places; `labels` as of `of_outputs`."""
    told = []
    for output in spec.outputs:
        sizes, names = (output.shown or output.shape)[1:], labels.get(output.name)
        if names and -1 not in sizes and len(names) != math.prod(sizes):
            told.append(
                f"there are {len(names)} labels for the {math.prod(sizes)} places of output '{output.name}': write one a line, "
                "in the order of the places"
            )
    return told
