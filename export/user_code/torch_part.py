"""A user's PyTorch module, in the child process: runs it, tells what it is made of, and lets torch write it.

Imports nothing of ours; see `program`. Torch has two exporters to ONNX; this asks the older one. Its graph is smaller, and
where it bakes in a loop or a branch, the proof of the file finds that. TorchScript is scripted or, where that fails, traced.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

OPSET = 17
_CLASS = re.compile(r"GLOBAL (?P<name>\S+)")  # as torch.load names what it does not unpickle
_HARMLESS = (nn.Dropout, nn.Identity, nn.Softmax, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Flatten)

Arrays = Mapping[str, npt.NDArray[Any]]
Header = Mapping[str, Any]


class Refused(Exception):
    """What cannot be exported; the message is a sentence for people."""


class Eager(nn.Module):
    """A module whose results are one flat tuple; what torch's own exporters are given.

    It is in evaluation mode itself: `torch.onnx.export` gives its mode, whatever the parts are in, to all of them, before and
    after. Parts that were in training mode at the end of a call are therefore looked for there, and added to `seen`.
    """

    def __init__(self, module: nn.Module, seen: set[str]) -> None:
        super().__init__()
        self.module = module
        self.seen = seen
        self.training = False

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        answers = tuple(flat(self.module(*tensors)))
        self.seen.update(in_training(self.module)[:1])
        return answers


class Network:
    """What the factory of `where` has given, with these weights, ready to answer. Methods but `facts` take header and arrays.

    Arrays go in by the names that header["inputs"] has in order, and come out as "0", "1", ...
    """

    def __init__(self, made: object, where: str, weights: str | None) -> None:
        if not isinstance(made, nn.Module):
            raise Refused(f"{where} gives a {type(made).__name__}; it must return a torch.nn.Module")
        if weights:
            load_weights(made, Path(weights))
        if any(parameter.device.type != "cpu" for parameter in made.parameters()):
            raise Refused("the module's weights are not on the CPU; let the factory leave them there")
        self.module = made.eval().requires_grad_(False)
        self.seen: set[str] = set(in_training(self.module)[:1])
        self.eager = Eager(self.module, self.seen)
        self._double: nn.Module | None = None

    def facts(self) -> Header:
        """A `digest` of its weights, and the `arguments` that its `forward` must have."""
        taken = inspect.signature(self.module.forward).parameters.values()
        places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        must = [each.name for each in taken if each.kind in places and each.default is each.empty]
        return {"digest": digest(self.module), "arguments": must}

    def after(self) -> Header:
        """What goes with every answer: a part that has answered in `training` mode, as `in_training` names it, or ""."""
        return {"training": min(self.seen, default="")}

    def run(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        with torch.inference_mode():
            answers = self.eager(*_tensors(header, arrays))
        return {}, {str(n): tensor.numpy() for n, tensor in enumerate(answers)}

    def run_float64(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """As `run`, in float64; `able` is false where the module cannot."""
        usual = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)  # for what it makes itself, as a first state
            self._double = self._double or Eager(copy.deepcopy(self.module).double(), set())
            tensors = [tensor.double() if tensor.is_floating_point() else tensor for tensor in _tensors(header, arrays)]
            with torch.inference_mode():
                answers = self._double(*tensors)
        except Exception:  # noqa: BLE001 - a float32 of its own, code that is not Python, too little memory: it cannot
            return {"able": False}, {}
        finally:
            torch.set_default_dtype(usual)
        return {"able": True}, {str(number): tensor.numpy() for number, tensor in enumerate(answers)}

    def parts(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """What it is made of, as `export.sources.plain_torch` asks it; weights as `lstms.0.weight_ih_l0`."""
        leaves = [part for part in self.module.modules() if not list(part.children())]
        kinds = {"lstms": nn.LSTM, "linear": nn.Linear, "embedding": nn.Embedding}
        known = (*kinds.values(), *_HARMLESS)
        described: dict[str, Any] = {
            "other": next((type(part).__name__ for part in leaves if not isinstance(part, known)), "")
        }
        weights = {}
        for name, kind in kinds.items():
            found = [part for part in leaves if isinstance(part, kind)]
            described[name] = [_sizes(part) for part in found]
            for number, part in enumerate(found):
                for each, tensor in part.named_parameters(recurse=False):
                    weights[f"{name}.{number}.{each}"] = tensor.detach().numpy().astype(np.float32)
        return described, {} if described["other"] else weights

    def write_onnx(self, header: Header, arrays: Arrays) -> Header:
        """Writes header["path"] with the names `inputs` and `outputs` and the axes that `free` leaves free, by name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.eager,
                _tensors(header, arrays),
                header["path"],
                input_names=header["inputs"],
                output_names=header["outputs"],
                dynamic_axes={name: axes for name, axes in header["free"].items() if axes},
                opset_version=OPSET,
                dynamo=False,
            )
        return {"note": ""}

    def write_torchscript(self, header: Header, arrays: Arrays) -> Header:
        """Scripted where its arguments have the names of the inputs and it returns tensors unnested, else traced."""
        names, tensors = list(header["inputs"]), _tensors(header, arrays)
        arguments = list(inspect.signature(self.module.forward).parameters)
        answer = self.module(*tensors)
        unnested = isinstance(answer, Tensor) or all(isinstance(part, Tensor) for part in answer)
        why = f"forward takes {', '.join(arguments)} and the inputs are {', '.join(names)}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not unnested:
                why = "forward returns tuples within tuples"
            elif arguments == names:
                try:
                    silent(torch.jit.script(self.module)).save(header["path"])
                    return {"note": ""}
                except Exception as error:  # noqa: BLE001 - what cannot be scripted is traced, and the trace is proved
                    why = str(error) or type(error).__name__
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            signature = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])
            named = type("Traced", (Eager,), {"forward": _forward(signature)})(self.module, self.seen)
            torch.jit.trace(named, tensors, check_trace=False).save(header["path"])  # type: ignore[no-untyped-call]
        return {"note": why}


def in_training(module: nn.Module) -> list[str]:
    """The parts of a module that are in training mode, as "NAME (CLASS)", the outermost first."""
    return [f"{name or 'it'} ({type(part).__name__})" for name, part in module.named_modules() if part.training]


def flat(answer: Any) -> Iterator[Tensor]:
    """The tensors of what a module returns. Raises `Refused` for what is neither a tensor nor a tuple of such."""
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        raise Refused("the module returns a dict; let it return a tensor or a tuple of tensors")
    elif isinstance(answer, (tuple, list)):
        for part in answer:
            yield from flat(part)
    else:
        raise Refused(f"the module returns a {type(answer).__name__}; it must return tensors, alone or in tuples")


def silent(scripted: Any) -> Any:
    """A scripted module without its prints, which a file would carry on to the output of whoever serves it."""
    for module in scripted.modules():
        for name in module._c._method_names():
            for node in list(module._c._get_method(name).graph.findAllNodes("prim::Print")):
                node.destroy()
    return scripted


def load_weights(module: nn.Module, path: Path) -> None:
    """Takes a state dict over; nothing but tensors is unpickled. Raises `Refused`."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if pickled := _CLASS.search(str(error)):
            raise Refused(
                f"{path} holds a pickled {pickled['name']}, which cannot be read without running code: save the state "
                "dict alone, torch.save(module.state_dict(), 'weights.pt')"
            ) from error
        raise Refused(
            f"{path} cannot be read as weights: {_one_line(error)}; give a state dict as .safetensors, or as .pt of tensors "
            "alone (torch.save(module.state_dict(), ...))"
        ) from error
    if not isinstance(state, Mapping):
        raise Refused(f"{path} holds a {type(state).__name__}; it must hold a state dict")
    if inside := [name for name, kept in state.items() if isinstance(kept, Mapping) and _are_tensors(kept)]:
        raise Refused(
            f"{path} holds a state dict under {inside[0]!r}, beside other things: {', '.join(map(str, state))}; save that alone: "
            f"torch.save(torch.load({str(path)!r})[{inside[0]!r}], 'weights.pt')"
        )
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        prefix = str(next(iter(state), "")).partition(".")[0] + "."
        wanted = {f"{prefix}{name}" for name in module.state_dict()}
        hint = (
            f"; every name begins with {prefix!r}, as a wrapper leaves it: save them without it, "
            f"{{name.removeprefix({prefix!r}): tensor for name, tensor in state.items()}}"
        )
        raise Refused(f"{path} does not fit the module: {_one_line(error)}{hint * (wanted == set(state))}") from error


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 400 else f"{line[:400]}..."


def _are_tensors(kept: Mapping[str, Any]) -> bool:
    return bool(kept) and all(isinstance(each, Tensor) for each in kept.values())


def digest(module: nn.Module) -> str:
    """SHA-256 (hex) of names, shapes, datatypes and bytes of all that the module keeps."""
    made = hashlib.sha256()
    for name, kept in sorted(module.state_dict().items()):
        if not isinstance(kept, Tensor):
            made.update(f"{name} {kept!r}\n".encode())
            continue
        made.update(f"{name} {tuple(kept.shape)} {kept.dtype}\n".encode())
        made.update(kept.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def _tensors(header: Header, arrays: Arrays) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(arrays[name]) for name in header["inputs"])


def _sizes(part: nn.Module) -> Mapping[str, Any]:
    """The sizes of an LSTM, a linear layer or an embedding, by the names that torch has for them."""
    names: Sequence[str]
    if isinstance(part, nn.LSTM):
        names = ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size")
    elif isinstance(part, nn.Linear):
        names = ("in_features", "out_features")
    else:
        names = ("num_embeddings", "embedding_dim")
    return {name: getattr(part, name) for name in names}


def _forward(signature: inspect.Signature) -> Any:
    def forward(self: Eager, *tensors: Tensor) -> Any:
        answers = Eager.forward(self, *tensors)
        return answers if len(answers) > 1 else answers[0]

    forward.__signature__ = signature  # type: ignore[attr-defined]  # tracing asks it for the names of the arguments
    return forward
