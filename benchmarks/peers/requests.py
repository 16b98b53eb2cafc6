"""What is asked: one row of 24 steps, or sequences of their own lengths; and whether the answers are right."""

from __future__ import annotations

import random
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from benchmarks.peers.errors import PeerError
from benchmarks.peers.server import MODEL, Server
from benchmarks.reference import CONFIG, STEPS
from protos import grpc_service_pb2 as pb

LONGEST, SEQUENCES = 256, 500


def one(seed: int = 0) -> bytes:
    """A request of one row of 24 steps."""
    return _request(_x(1, STEPS, seed))


def write_lengths(one_length: Path, own_lengths: Path) -> None:
    """Two files for lstm-loadtest: 500 sequences of 1 to 256 steps, drawn evenly, and as many of their mean length."""
    drawn = random.Random(0)
    lengths = [drawn.randint(1, LONGEST) for _ in range(SEQUENCES)]
    middle = sum(lengths) // SEQUENCES
    for path, chosen in ((one_length, [middle] * SEQUENCES), (own_lengths, lengths)):
        np.savez(path, **{str(number): _x(1, steps, number)[0] for number, steps in enumerate(chosen)})


def check(server: Server, onnx_file: Path) -> None:
    """Raises `PeerError` unless the server answers as the file does: a wrong answer may be a cheap one."""
    x = _x(2, STEPS, 1)
    state = np.zeros((2, CONFIG.layers, CONFIG.hidden), np.float32)
    feeds = {"x": x, "lengths": np.full(2, STEPS, np.int64), "h0": state, "c0": state}
    (wanted,) = onnxruntime.InferenceSession(str(onnx_file)).run(["y"], feeds)
    credentials = server.endpoint.credentials
    opened = grpc.secure_channel(server.address, credentials) if credentials else grpc.insecure_channel(server.address)
    with opened as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            response = pb.ModelInferResponse.FromString(send(_request(x), timeout=10))
        except grpc.RpcError as error:
            raise PeerError(f"a request was refused: {error.code().name}: {error.details()}") from error
    raw = b"".join(response.raw_output_contents)
    if len(raw) != wanted.nbytes or not np.allclose(np.frombuffer(raw, np.float32), wanted[:, 0], rtol=1e-5, atol=1e-6):
        raise PeerError(f"the answer is not the file's: {response!r}")


def _x(rows: int, steps: int, seed: int) -> np.ndarray:
    """float32 [rows, steps, features]."""
    return np.random.default_rng(seed).normal(size=(rows, steps, CONFIG.features)).astype(np.float32)


def _request(x: np.ndarray) -> bytes:
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return request.SerializeToString()
