"""Brings any PyTorch module into a model repository: by the writers of this folder if it is a plain LSTM, else by torch.

Nothing is recognised by its looks alone: a module counts as a plain stack of LSTM and linear layers only if the canonical
network with its weights gives its answers. One fact that surprises: a module of torch is tried for that in both orders of
axes, since the canonical network has the rows first whatever the module has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import inspect
import itertools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export import foreign, formats
from export.errors import ExportError
from export.foreign import Target
from export.publish import Version, publish
from models.checkpoint import DIRECTIONS, Checkpoint, no_scaling
from models.config import ConfigError, LSTMConfig
from models.torch_lstm import TorchLSTM
from serving import findings, golden
from serving.backends.base import first_line
from serving.findings import Hints
from serving.signature import Stated
from serving.spec import ModelSpec, Tensors

OPSET = 17
_HARMLESS = (nn.Dropout, nn.Identity, nn.Softmax, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Flatten)


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
    eager = _Eager(module, tuple(inputs))
    try:
        answers = eager.run(foreign.ones(inputs))
    except ExportError:
        raise
    except Exception as error:
        declared = ", ".join(f"{name}:{datatype}{list(shape or ())}" for name, (datatype, shape) in inputs.items())
        raise ExportError(
            f"the module does not run on what --input says ({declared}, tried with 5 along every free axis): {first_line(error)}"
        ) from error
    checkpoint = None if outputs or hints != Hints() else recognise(module, inputs, target.described)
    if checkpoint and _free(inputs, checkpoint.config):
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
            f"none; it can be had as {' or '.join(WRITERS)}"
        )
    names = foreign.names_of_outputs(outputs, len(answers))
    stated = findings.unproved(
        inputs,
        {name: (foreign.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        _digest(module),
    )
    version, spec = foreign.publish(
        stated,
        lambda sent, wanted: dict(zip(names, eager.run(sent), strict=True)),
        {form: (WRITERS[form][0], functools.partial(WRITERS[form][1], eager)) for form in chosen},
        hints,
        dataclasses.replace(target, described={"framework": "torch", **target.described}),
        "put it into tensor operations (torch.where), or make the module scriptable and take --format torchscript",
    )
    return version, f"a module of its own: its own signature; {foreign.told_rows(spec)}"


def recognise(module: nn.Module, inputs: Mapping[str, Stated], described: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint of a module that is a plain stack of LSTM and linear layers with one input; None for any other."""
    parts = [part for part in module.modules() if not list(part.children())]
    lstms = [part for part in parts if isinstance(part, nn.LSTM)]
    linear = [part for part in parts if isinstance(part, nn.Linear)]
    embedding = [part for part in parts if isinstance(part, nn.Embedding)]
    others = [part for part in parts if not isinstance(part, (nn.LSTM, nn.Linear, nn.Embedding, *_HARMLESS))]
    if len(inputs) != 1 or not lstms or len(linear) != 1 or len(embedding) > 1 or others:
        return None
    if len({(part.hidden_size, part.bidirectional) for part in lstms}) > 1 or any(p.proj_size for p in lstms):
        return None
    for head in ("values_per_step", "values", "classification"):
        if embedding:
            fields = {"vocabulary": embedding[0].num_embeddings, "embedding": embedding[0].embedding_dim}
        else:
            fields = {"features": lstms[0].input_size}
        try:
            config = LSTMConfig(
                input="tokens" if embedding else "features",
                layers=sum(part.num_layers for part in lstms),
                hidden=lstms[0].hidden_size,
                bidirectional=lstms[0].bidirectional,
                head=head,
                outputs=linear[0].out_features,
                **fields,
            )
            network = TorchLSTM(config)
            network.load_canonical(_canonical(config, lstms, linear[0], embedding))
        except (ConfigError, ValueError):
            continue
        for batch_first in {part.batch_first for part in lstms}:
            if _same(module, network, config, batch_first):
                weights = network.canonical_weights()
                return Checkpoint(config=config, weights=weights, framework="torch", training=dict(described))
    return None


def _free(inputs: Mapping[str, Stated], config: LSTMConfig) -> bool:
    """Whether the one input is declared as the canonical network takes it, every size free but that of the features."""
    ((_, declared),) = inputs.items()
    return declared in (
        [("INT64", (-1, -1))]
        if config.input == "tokens"
        else [("FP32", (-1, -1, size)) for size in (config.features, -1)]
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


def _canonical(
    config: LSTMConfig, lstms: Sequence[nn.LSTM], linear: nn.Linear, embedding: Sequence[nn.Embedding]
) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the parts in the layout of `models.checkpoint`. Scaling is none: the module has its own, or none."""

    def array(tensor: Tensor | None, *shape: int) -> npt.NDArray[np.float32]:
        return np.zeros(shape, np.float32) if tensor is None else tensor.detach().numpy().astype(np.float32)

    weights = {"head.weight": array(linear.weight), "head.bias": array(linear.bias, config.outputs)}
    weights |= no_scaling(config)
    if embedding:
        weights["embedding"] = array(embedding[0].weight)
    inner = [(lstm, layer) for lstm in lstms for layer in range(lstm.num_layers)]
    for number, (lstm, layer) in enumerate(inner):
        for direction, suffix in zip(DIRECTIONS[: config.directions], ("", "_reverse"), strict=False):
            for part, kind in itertools.product(("weight", "bias"), ("input", "hidden")):
                tensor = getattr(lstm, f"{part}_{kind[0]}h_l{layer}{suffix}", None)
                weights[f"lstm.{number}.{direction}.{part}_{kind}"] = array(tensor, 4 * config.hidden)
    return weights


def _same(module: nn.Module, network: TorchLSTM, config: LSTMConfig, batch_first: bool) -> bool:
    """Whether the module answers as the canonical network does, for several numbers of rows and steps."""
    generator = np.random.default_rng(5)
    for rows, steps in ((1, 1), (3, 7), (2, 24)):
        if config.input == "tokens":
            x: npt.NDArray[Any] = generator.integers(0, config.vocabulary, (rows, steps))
        else:
            x = generator.normal(size=(rows, steps, config.features)).astype(np.float32)
        expected = network.predict({"x": x})["y"]
        given = torch.tensor(x if batch_first else np.ascontiguousarray(np.moveaxis(x, 0, 1)))
        try:
            with torch.inference_mode():
                got = next(iter(_flat(module(given)))).numpy()
        except Exception:  # noqa: BLE001 - a module that does not run so is none of these
            return False
        if not batch_first and config.head == "values_per_step":
            got = np.moveaxis(got, 0, 1) if got.ndim == 3 else got
        if golden.disagreement(got, expected) > foreign.SAME:
            return False
    return True


class _Eager(nn.Module):
    """The module with its arguments by name and its results as one flat tuple; what torch's own exporters are given."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_flat(self.module(*tensors)))

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in self(*self.tensors(sent))]

    def tensors(self, sent: Tensors) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(sent[name]) for name in self.names)


def _flat(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        raise ExportError("the module returns a dict; let it return a tensor or a tuple of tensors")
    elif isinstance(answer, (tuple, list)):
        for part in answer:
            yield from _flat(part)
    else:
        raise ExportError(f"the module returns a {type(answer).__name__}; it must return tensors, alone or in tuples")


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else bytes(1))
    return digest.hexdigest()


def _write_onnx(eager: _Eager, spec: ModelSpec, path: Path) -> None:
    tensors = (*spec.inputs, *spec.outputs)
    axes = {t.name: [axis for axis, size in enumerate(t.file_shape) if size == -1] for t in tensors}
    with _quiet():
        try:
            torch.onnx.export(
                eager,
                eager.tensors(foreign.example(spec, 2, 9)),
                str(path),
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_axes={name: free for name, free in axes.items() if free},
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:
            raise ExportError(_cannot("onnx", error)) from error


def _write_torchscript(eager: _Eager, spec: ModelSpec, path: Path) -> None:
    """Scripted where its arguments have the names of the inputs and it returns tensors unnested, else traced."""
    arguments = list(inspect.signature(eager.module.forward).parameters)
    answer = eager.module(*eager.tensors(foreign.example(spec, 2, 9)))
    flat = isinstance(answer, Tensor) or all(isinstance(part, Tensor) for part in answer)
    with _quiet():
        if flat and arguments == list(eager.names):
            with contextlib.suppress(Exception):  # what cannot be scripted is traced, and the trace is proved
                torch.jit.script(eager.module).save(str(path))  # type: ignore[no-untyped-call]
                return
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in ("self", *eager.names)]
        named = type("Traced", (_Eager,), {"forward": _forward(inspect.Signature(names))})(eager.module, eager.names)
        try:
            example = eager.tensors(foreign.example(spec, 2, 9))
            torch.jit.trace(named, example, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ExportError(_cannot("torchscript", error)) from error


def _forward(signature: inspect.Signature) -> Any:
    def forward(self: _Eager, *tensors: Tensor) -> Any:
        answers = tuple(_flat(self.module(*tensors)))
        return answers if len(answers) > 1 else answers[0]

    forward.__signature__ = signature  # type: ignore[attr-defined]  # tracing asks it for the names of the arguments
    return forward


WRITERS = {"onnx": ("onnx_runtime", _write_onnx), "torchscript": ("torchscript", _write_torchscript)}


def _cannot(form: str, error: Exception) -> str:
    return (
        f"torch cannot write the module as {form}: {type(error).__name__}: {first_line(error)}; "
        "replace the operation that it names, or try the other format"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
