"""The models that Triton's example clients for sequences ask: one whole number a step, and the controls that they know.

    simple_sequence             OUTPUT = INPUT, and one more at START
    simple_dyna_sequence        the same, and the id more at END
    simple_string_dyna_sequence OUTPUT = the sum of all INPUT so far, and the id, a text of digits, more at END

Triton has the first two as files without a state, and the last one as code. Here each is a file whose state is the sum so far;
the first two answer the difference of the two sums, so that a state that was moved by something else would show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support import graphs

PLAIN, DYNA, STRING_DYNA = "simple_sequence", "simple_dyna_sequence", "simple_string_dyna_sequence"
_INT32 = 6  # as ONNX numbers datatypes
_TRITONS_TYPES = {"INT32": "TYPE_INT32", "UINT64": "TYPE_UINT64", "BYTES": "TYPE_STRING"}


def write(repository: Path) -> Path:
    """All three, each with its config.pbtxt as Triton's users write it; returns the repository."""
    _write(repository / PLAIN, "", "direct { }")
    _write(repository / DYNA, "UINT64", "oldest { max_candidate_sequences: 1024 max_queue_delay_microseconds: 1000 }")
    _write(repository / STRING_DYNA, "BYTES", "oldest { max_candidate_sequences: 1024 }", sums=True)
    return repository


def _write(folder: Path, corrid: str, strategy: str, *, sums: bool = False) -> None:
    """One of them: `corrid` is the datatype of its CORRID, empty where it has neither that nor END."""
    number = ("INT32", ["rows", 1])
    nodes: list[tuple[str, list[str], list[str]] | tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Add", ["INPUT_STATE", "INPUT"], ["OUTPUT_STATE"]),
        ("Sub", ["OUTPUT_STATE", "INPUT_STATE"], ["step"]),
        ("Add", ["step", "START"], ["begun"]) if not sums else ("Identity", ["OUTPUT_STATE"], ["begun"]),
    ]
    inputs = {"INPUT": number, "INPUT_STATE": number, "READY": number}
    kept: dict[str, npt.NDArray[Any]] = {}
    controls = [_flag("READY")]
    if not sums:
        inputs["START"] = number
        controls.append(_flag("START"))
    last = "begun"
    if corrid:
        inputs |= {"END": number, "CORRID": (corrid, ["rows", 1])}
        controls += [_flag("END"), _control("CORRID", f"CORRID data_type: {_TRITONS_TYPES[corrid]}")]
        whose = "CORRID"
        if corrid == "BYTES":  # no text at all is 0
            kept["digit"] = np.array([["0"]], object)
            nodes.append(("StringConcat", ["digit", "CORRID"], ["digits"]))
            whose = "digits"
        nodes += [
            ("Cast", [whose], ["id"], {"to": _INT32}),
            ("Mul", ["END", "id"], ["id_at_end"]),
            ("Add", [last, "id_at_end"], ["with_id"]),
        ]
        last = "with_id"
    nodes.append(("Mul", [last, "READY"], ["OUTPUT"]))
    outputs = {"OUTPUT": number, "OUTPUT_STATE": number}
    graphs.write(folder / "1" / "model.onnx", nodes, inputs, outputs, kept, opset=20)
    (folder / "config.pbtxt").write_text(f"""
        name: "{folder.name}"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        sequence_batching {{
          max_sequence_idle_microseconds: 5000000
          {strategy}
          control_input [ {", ".join(controls)} ]
          state [
            {{
              input_name: "INPUT_STATE" output_name: "OUTPUT_STATE" data_type: TYPE_INT32 dims: [ 1 ]
              initial_state: {{ data_type: TYPE_INT32 dims: [ 1 ] zero_data: true name: "nothing yet" }}
            }}
          ]
        }}
        input [ {{ name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
        output [ {{ name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
        instance_group [ {{ kind: KIND_CPU }} ]
    """)


def _flag(name: str) -> str:
    return _control(name, f"{name} int32_false_true: [ 0, 1 ]")


def _control(name: str, said: str) -> str:
    return f'{{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{said} }} ] }}'
