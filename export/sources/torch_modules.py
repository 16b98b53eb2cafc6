"""Brings any PyTorch module into a model repository: by our writers if it is a plain LSTM, else by torch.

The module lives in a child process (`export.user_code`), which runs the user's code; this asks it. `plain_torch` decides
whether it is plain. Whoever loads a TorchScript file puts it into evaluation mode, so a module that answers in training mode
(batch norm, dropout) would answer otherwise once it is a file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from export import formats
from export.errors import ExportError
from export.missing import UNKNOWN, Missing
from export.publish import publish
from export.sources import own_signature, plain, told
from export.sources.differences import ROWS, SIZE, Advice, example
from export.sources.plain_torch import Parts, Plain, recognise
from export.user_code.asking import Raised, UserCode
from export.versions import Target, Version
from serving.backends.base import first_line
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors
from serving.verification import inspection
from serving.verification.hints import Hints

WRITERS = {"onnx": "onnx_runtime", "torchscript": "torchscript"}  # what torch writes, and who reads it


class TorchModule:
    """A user's module by the names of its inputs, which are those of its `forward` in order; it runs in `code`'s process.

    Whatever it is asked, `ExportError` is raised when the module has gone back to training mode meanwhile.
    """

    def __init__(self, code: UserCode, names: Sequence[str]) -> None:
        self._code = code
        self._names = list(names)
        self.digest = str(code.facts["digest"])
        _refuse_training(code.facts)

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        """What it returns, flat. Raises `Raised` for an error of its own."""
        try:
            header, arrays, _ = self._code.ask("run", self._sent(sent), inputs=self._names)
        except Raised as error:
            _refuse_training(error.answer)  # that explains whatever else is wrong
            raise
        _refuse_training(header)
        return list(arrays.values())

    def run_float64(self, sent: Tensors) -> list[npt.NDArray[Any]] | None:
        """As `run`, with weights and inputs in float64; None where it cannot."""
        header, arrays, _ = self._code.ask("run_float64", self._sent(sent), inputs=self._names)
        return list(arrays.values()) if header["able"] else None

    def parts(self) -> Parts:
        """What it is made of."""
        header, arrays, _ = self._code.ask("parts")
        return Parts(arrays, **{name: header[name] for name in ("other", "lstms", "linear", "embedding")})

    def write(self, form: str, spec: ModelSpec, path: Path) -> str:
        """Has torch write it; returns how the file came about, where that explains a wrong answer, else "".

        Raises `ExportError` when torch cannot, or when what it needs for that is not installed.
        """
        formats.check((form,))
        free = {
            t.name: [axis for axis, size in enumerate(t.file_shape) if size == -1]
            for t in (*spec.inputs, *spec.outputs)
        }
        try:
            header = self._code.ask(
                f"write_{form}",
                self._sent(example(spec, ROWS, SIZE)),
                doing=f"while torch wrote it as {form}",
                path=str(path.absolute()),
                inputs=self._names,
                outputs=[tensor.name for tensor in spec.outputs],
                free=free,
            ).header
        except Raised as error:
            _refuse_training(error.answer)
            (other,) = set(WRITERS) - {form}
            raise ExportError(
                f"torch cannot write the module as {form}: {error}; take --format {other}, or replace in the module what "
                "this speaks of"
            ) from error
        _refuse_training(header)
        note = header["note"]
        return f"it could not be scripted and was traced: {first_line(Exception(note))}" if note else ""

    def _sent(self, sent: Tensors) -> Tensors:
        return {name: sent[name] for name in self._names}


def publish_module(
    code: UserCode,
    *,
    inputs: Mapping[str, Stated],
    outputs: Sequence[str],
    chosen: Sequence[str] | None,
    hints: Hints,
    target: Target,
) -> tuple[Version, str]:
    """Writes the module of `code` as a version, and says as what, with its signature.

    `inputs` are those of its `forward`, in order; `outputs` names what it returns, nested tuples flattened; `chosen` is
    every format that the module can be had in if it is None.

    Raises `ExportError` for what cannot be exported, `Unclear` when a person has to decide, `VerificationFailed` when a
    file does not compute what the module does, and `OSError`. Whatever it raises, the repository holds no part of the
    version then.
    """
    target.check()
    module = TorchModule(code, tuple(inputs))
    answers = own_signature.first_answers(module.run, inputs, hints, "--input")
    names = own_signature.names_of_outputs(outputs, len(answers))
    stated = inspection.unproved(
        inputs,
        {name: (own_signature.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        module.digest,
    )

    def run(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        return dict(zip(names, module.run(sent), strict=True))

    def wide(sent: Tensors) -> Tensors | None:
        answers = module.run_float64(sent)
        return None if answers is None else dict(zip(names, answers, strict=True))

    found = (
        plain.TOLD_MORE
        if outputs or hints != Hints()
        else recognise(module.parts(), module.run, inputs, target.described)
    )
    if isinstance(found, Plain):
        made = publish(
            plain.with_samples(found.checkpoint, stated, run, target, wide, rows_first=found.rows_first),
            chosen=chosen or formats.names(),
            repository=target.repository,
            name=target.name,
            version=target.version,
            tolerance=target.tolerance,
            stateful=target.stateful,
            every=chosen is None,
        )
        sentence = f"a plain {found.checkpoint.config.told()}: the canonical signature, every format"
        if "x" not in inputs:
            sentence += f"; {next(iter(inputs))} is called x"
        if not found.rows_first:
            sentence += (
                "; the module takes the steps first, as nn.LSTM does without batch_first; what was written takes the "
            )
            sentence += "rows first"
        return made, f"{sentence}\n{told.signature(ModelSpec.read(made.path / 'spec.json'))}"
    every, chosen = chosen is None, chosen or tuple(WRITERS)
    if foreign_formats := [form for form in chosen if form not in WRITERS]:
        raise ExportError(
            f"format {foreign_formats[0]} can be written of plain stacks of LSTM and linear layers only, and this module is "
            f"none: {found}; it can be had as {' or '.join(WRITERS)}"
        )
    writers: dict[str, tuple[str, Callable[[ModelSpec, Path], str]]] = {
        form: (WRITERS[form], functools.partial(module.write, form)) for form in chosen
    }
    version, spec = own_signature.publish(
        stated,
        run,
        writers,
        hints,
        dataclasses.replace(target, described={"framework": "torch", **target.described}),
        Advice(
            branch="put it into tensor operations (torch.where, x.shape[0]), or let torch.jit.script take the module and choose "
            "--format torchscript",
            sizes="a size was a number of Python when it was written, or a loop of Python over an axis was unrolled: compute "
            "sizes from the tensors (x.shape[1]) and let nn.LSTM do the loop, let torch.jit.script take the module and "
            "choose --format torchscript, or fix the size with --shape NAME:SIZES",
        ),
        wide,
        every=every,
    )
    sentence = f"a module of its own: its own signature, since {found}; {own_signature.told_rows(spec)}"
    return version, f"{sentence}\n{told.signature(spec)}"


def inputs_missing(code: UserCode) -> Missing:
    """What to say of the inputs of a module of which nothing was said: the arguments of its `forward`, in order."""
    names = list(code.facts["arguments"]) or ["x"]
    flags = [part for name in names for part in ("--input", f"{name}:{UNKNOWN}")]
    return Missing(
        "a module states neither shapes nor datatypes of its inputs: give them in order, as in --input x:FP32[-1,-1,40], -1 "
        "where free",
        flags,
    )


def _refuse_training(answer: Mapping[str, Any]) -> None:
    if answer["training"]:
        raise ExportError(
            f"the module answers in training mode: {answer['training']} stays in it after module.eval(). There, rows touch each "
            "other or something is drawn at random, and a file is served in evaluation mode; leave train() and eval() as "
            "torch has them"
        )
