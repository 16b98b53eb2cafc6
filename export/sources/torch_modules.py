"""Brings any PyTorch module into a model repository: by our writers if it is a plain LSTM, else by torch.

`plain_torch` decides whether it is plain. Whoever loads a TorchScript file puts it into evaluation mode, so a module that
answers in training mode (batch norm, dropout) would answer otherwise once it is a file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from export import formats
from export.errors import ExportError
from export.publish import publish
from export.sources import own_signature, plain
from export.sources.own_signature import Advice
from export.sources.plain_torch import recognise
from export.sources.torch_files import WRITERS, Eager
from export.versions import Target, Version
from models.checkpoint import Checkpoint
from serving.signature.stated import Stated
from serving.verification import inspection
from serving.verification.hints import Hints


def load_module(where: str, weights: Path | None) -> nn.Module:
    """What FACTORY of `MODULE:FACTORY` returns, with these weights, ready to answer.

    MODULE is imported as Python would from the working directory; nothing of `weights` is unpickled but tensors. Raises
    `ExportError`, saying which of the steps failed.
    """
    name, _, factory = where.partition(":")
    if not name or not factory:
        raise ExportError(f"{where!r} names no factory: write MODULE:FACTORY, as in my_project.networks:build")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(name), factory)
        module = found()
    except Exception as error:
        raise ExportError(
            f"{where} does not give a module: {type(error).__name__}: {error}; FACTORY is called without arguments"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise ExportError(f"{where} gives a {type(module).__name__}; it must return a torch.nn.Module")
    if weights:
        _load_weights(module, weights)
    return module.eval().requires_grad_(False)


def publish_module(
    module: nn.Module,
    *,
    inputs: Mapping[str, Stated],
    outputs: Sequence[str],
    chosen: Sequence[str] | None,
    hints: Hints,
    target: Target,
) -> tuple[Version, str]:
    """Writes `module` as a version, and says in one sentence as what.

    `inputs` are those of its `forward`, in order; `outputs` names what it returns, nested tuples flattened; `chosen` is
    every format that the module can be had in if it is None.

    Raises `ExportError` for what cannot be exported, `Unclear` when a person has to decide, `VerificationFailed` when a
    file does not compute what the module does, and `OSError`. Whatever it raises, the repository holds no part of the
    version then.
    """
    target.check()
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        raise ExportError("the module's weights are not on the CPU; let the factory leave them there")
    _refuse_training(module)
    eager = Eager(module, tuple(inputs))
    try:
        answers = own_signature.first_answers(eager.run, inputs, hints, "--input")
    finally:
        _refuse_training(module)  # it may have gone back there by itself, and that explains whatever else is wrong
    checkpoint = plain.TOLD_MORE if outputs or hints != Hints() else recognise(module, inputs, target.described)
    if isinstance(checkpoint, Checkpoint):
        made = publish(
            checkpoint,
            chosen=chosen or formats.names(),
            repository=target.repository,
            name=target.name,
            version=target.version,
            tolerance=target.tolerance,
        )
        renamed = "" if "x" in inputs else f"; {next(iter(inputs))} is called x"
        return made, f"a plain {checkpoint.config.told()}: the canonical signature, every format{renamed}"
    chosen = chosen or tuple(WRITERS)
    if foreign_formats := [form for form in chosen if form not in WRITERS]:
        raise ExportError(
            f"format {foreign_formats[0]} can be written of plain stacks of LSTM and linear layers only, and this module is "
            f"none: {checkpoint}; it can be had as {' or '.join(WRITERS)}"
        )
    names = own_signature.names_of_outputs(outputs, len(answers))
    stated = inspection.unproved(
        inputs,
        {name: (own_signature.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        _digest(module),
    )
    version, spec = own_signature.publish(
        stated,
        lambda sent, wanted: dict(zip(names, eager.run(sent), strict=True)),
        {form: (WRITERS[form][0], functools.partial(WRITERS[form][1], eager)) for form in chosen},
        hints,
        dataclasses.replace(target, described={"framework": "torch", **target.described}),
        Advice(
            branch="put it into tensor operations (torch.where, x.shape[0]), or let torch.jit.script take the module and choose "
            "--format torchscript",
            sizes="a size was a number of Python when it was written, or a loop of Python over an axis was unrolled: compute "
            "sizes from the tensors (x.shape[1]) and let nn.LSTM do the loop, let torch.jit.script take the module and "
            "choose --format torchscript, or fix the size with --shape NAME:SIZES",
        ),
    )
    return version, f"a module of its own: its own signature, since {checkpoint}; {own_signature.told_rows(spec)}"


def _refuse_training(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if part.training:
            raise ExportError(
                f"the module answers in training mode: {name or 'it'} ({type(part).__name__}) stays in it after module.eval(). "
                "There, rows touch each other or something is drawn at random, and a file is served in evaluation mode; leave "
                "train() and eval() as torch has them"
            )


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(
            f"{path} cannot be read as weights: {error}; give a state dict as .safetensors, or as .pt of tensors alone "
            "(torch.save(module.state_dict(), ...))"
        ) from error
    if not isinstance(state, Mapping):
        raise ExportError(f"{path} holds a {type(state).__name__}; it must hold a state dict")
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} does not fit the module: {error}") from error


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else bytes(1))
    return digest.hexdigest()
