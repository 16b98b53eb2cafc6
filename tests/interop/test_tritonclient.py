"""Every model in every backend, asked by the unmodified `tritonclient` from its own environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import trustme

from models import networks
from models.checkpoint import Checkpoint
from serving import backends
from serving.launch import LaunchedServer
from serving.verification import golden
from tests.support.commands import ROOT
from tests.support.grpc_port import EDGES
from tests.support.trained import MODELS, Trained

TOLERANCE = 1e-4


@pytest.mark.parametrize("backend", backends.PREFERENCE)
def test_predictions_equal_the_trained_models(
    backend: str, vowels: Trained, client_python: str, tmp_path: Path
) -> None:
    generator = np.random.default_rng(5)
    with LaunchedServer(vowels.repository, "--backend", backend) as server:
        for model in MODELS:
            checkpoint = Checkpoint.load(vowels.runs[model])
            lengths = np.array([len(sample) for sample in checkpoint.samples])
            x = np.full((len(lengths), lengths.max(), checkpoint.config.features), np.nan, np.float32)
            for row, sample in zip(x, checkpoint.samples, strict=True):
                row[: len(sample)] = sample
            state = (len(lengths), checkpoint.config.layers, checkpoint.config.hidden)
            h0, c0 = (generator.uniform(-0.5, 0.5, state).astype(np.float32) for _ in range(2))
            inputs = {"x": x, "lengths": lengths, "h0": h0, "c0": c0}
            network = networks.load(checkpoint)
            np.savez(tmp_path / "in.npz", **inputs)
            client = [client_python, str(Path(__file__).with_name("triton_client.py")), server.address, model]
            subprocess.run([*client, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")], check=True)
            with np.load(tmp_path / "out.npz") as got:
                golden.check_agreement(f"{model} in {backend}", got, network.predict(inputs), TOLERANCE)
                whole_rows = lengths == lengths.max()  # without lengths the padding counts as steps
                plain = network.predict({"x": np.nan_to_num(x)})["y"][whole_rows]
                assert golden.disagreement(got["plain"][whole_rows], plain) < TOLERANCE
        assert server.stop() == 0


_STREAM = """
import queue, sys
import numpy as np
import tritonclient.grpc as grpcclient
answers = queue.Queue()
client = grpcclient.InferenceServerClient(sys.argv[1])
client.start_stream(lambda result, error: answers.put((result, error)))
x = grpcclient.InferInput("x", [1, 20, 12], "FP32")
x.set_data_from_numpy(np.zeros((1, 20, 12), np.float32))
for number in range(50):
    client.async_stream_infer("nobody" if number == 7 else "vowels_torch", [x], request_id=str(number))
got = [answers.get(timeout=30) for _ in range(50)]
client.stop_stream()
for number, (result, error) in enumerate(got):
    if number == 7:
        assert "Request for unknown model: 'nobody' is not found" in str(error), error
    else:
        assert error is None, error
        assert result.get_response().id == str(number)
        assert result.get_response().parameters["triton_final_response"].bool_param
client.close()
"""


def test_a_stream_of_the_unmodified_client(on_each_edge: LaunchedServer, client_python: str) -> None:
    done = subprocess.run(
        [client_python, "-c", _STREAM, on_each_edge.address], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_our_declarations_of_the_protocol_are_the_clients(client_python: str) -> None:
    """Same packages, services, messages, fields, numbers and types; compared outside of both processes."""
    ours = _shape("python", "from protos import grpc_service_pb2 as s, model_config_pb2 as m")
    theirs = _shape(client_python, "from tritonclient.grpc import service_pb2 as s, model_config_pb2 as m")
    assert len(ours) > 400
    assert set(ours) == set(theirs)


_DESCRIBE = """
from google.protobuf import descriptor_pb2
def walk(message, path):
    for f in message.field:
        print(path, f.name, f.number, f.type, f.label, f.type_name, message.oneof_decl[f.oneof_index].name
              if f.HasField("oneof_index") else "", sep="|")
    for e in message.enum_type:
        enum(e, path)
    for n in message.nested_type:
        walk(n, path + "." + n.name)
def enum(e, path):
    for v in e.value:
        print(path, e.name, v.name, v.number, sep="|")
for module in (s, m):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        walk(message, file.package + "." + message.name)
    for e in file.enum_type:
        enum(e, file.package)
    for service in file.service:
        for r in service.method:
            print(file.package, service.name, r.name, r.input_type, r.output_type, r.client_streaming,
                  r.server_streaming, sep="|")
"""


def _shape(python: str, imports: str) -> list[str]:
    import sys

    command = [sys.executable if python == "python" else python, "-c", imports + _DESCRIBE]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()


@pytest.mark.parametrize("edge", EDGES)
def test_tls_with_a_client_certificate_and_a_token(
    edge: str, vowels: Trained, client_python: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("me@here")),
    ):
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text("a-token-of-this-test\n")
    flags = {"tls-cert": "server.pem", "tls-key": "server.key", "tls-client-ca": "ca.pem", "auth-token-file": "token"}
    program = """
import sys
import numpy as np
import tritonclient.grpc as grpcclient
client = grpcclient.InferenceServerClient(
    sys.argv[1], ssl=True, root_certificates="ca.pem", private_key="client.key", certificate_chain="client.pem"
)
x = grpcclient.InferInput("x", [1, 20, 12], "FP32")
x.set_data_from_numpy(np.zeros((1, 20, 12), np.float32))
headers = {"authorization": "Bearer " + open("token").read().strip()}
assert client.is_server_ready(headers=headers)
assert client.infer("vowels_torch", [x], headers=headers).as_numpy("y").shape == (1, 9)
client.close()
"""
    arguments = [part for flag, file in flags.items() for part in (f"--{flag}", str(tmp_path / file))]
    with LaunchedServer(vowels.repository, "--backend", "onnx_runtime", "--edge", edge, *arguments) as server:
        done = subprocess.run(
            [client_python, "-c", program, server.address], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
