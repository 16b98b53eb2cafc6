"""The cases of gRPC's interop test descriptions that a unary and a bidirectional method can show, on every edge.

https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md. Not here, since an edge hands bytes up and neither
flags nor metadata: the probe that wants an uncompressed request refused, an answer that is compressed on demand, metadata that
is echoed, UNKNOWN as a code (no answer of ours has it). One-way streams are not in the protocol; credentials of a cloud are
none of ours.
"""

from __future__ import annotations

import queue

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from serving.edge.edges import NGHTTP2
from serving.protocol.call import Call
from serving.protocol.codes import Code
from serving.protocol.methods import SERVICE
from tests.support.grpc_port import EDGES, WAIT_SECONDS, channel, port, refusal, stream, unary
from tests.support.relay import Relay

CODE = grpc.StatusCode
ASKED_BYTES, ANSWERED_BYTES = 271_828, 314_159
COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Deflate, grpc.Compression.Gzip]
# What is small, what is large, what is empty but for its description: sizes of request and answer.
PING_PONG = [(27_182, 31_415), (8, 9), (1_828, 2_653), (45_904, 58_979)]
ENDS_ON_ERROR = [("triton_grpc_error", "true")]
CUSTOM_METADATA = [
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
    ("x-every-byte-bin", bytes(range(256))),
    ("x-empty-bin", b""),
]
MESSAGES = {
    "plain": "test status message",
    "special": "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
    "percent": "100% of %41 and %",
}

pytestmark = pytest.mark.parametrize("edge", EDGES)


def asking(asked_bytes: int, answered_bytes: int) -> bytes:
    """A request of so many zeros for an answer of so many."""
    wanted = {"size": pb.InferParameter(int64_param=answered_bytes)}
    return pb.ModelInferRequest(parameters=wanted, raw_input_contents=[bytes(asked_bytes)]).SerializeToString()


def failing(code: Code, message: str) -> bytes:
    """A request that is to fail so."""
    wanted = {"code": pb.InferParameter(string_param=code.name), "message": pb.InferParameter(string_param=message)}
    return pb.ModelInferRequest(parameters=wanted).SerializeToString()


def answering(payload: bytes, call: Call) -> None:
    """Does what the request asks for."""
    wanted = pb.ModelInferRequest.FromString(payload).parameters
    if "code" in wanted:
        call.fail(Code[wanted["code"].string_param], wanted["message"].string_param)
    else:
        zeros = bytes(wanted["size"].int64_param)
        call.reply(pb.ModelInferResponse(raw_output_contents=[zeros]).SerializeToString())


def answered(message: bytes) -> int:
    """How many zeros an answer has."""
    (zeros,) = pb.ModelInferResponse.FromString(message).raw_output_contents
    assert zeros == bytes(len(zeros))
    return len(zeros)


def streamed(message: bytes) -> int:
    """How many zeros a message of a stream has."""
    return answered(pb.ModelStreamInferResponse.FromString(message).infer_response.SerializeToString())


def goes_on(client: grpc.Channel) -> bool:
    """Whether the connection still answers."""
    return answered(unary(client)(asking(1, 2), timeout=WAIT_SECONDS)) == 2


def test_empty_unary(edge: str) -> None:
    with port(edge) as server, channel(server) as client:
        assert unary(client)(b"", timeout=WAIT_SECONDS) == b""


def test_large_unary(edge: str) -> None:
    with port(edge, answering) as server, channel(server) as client:
        assert answered(unary(client)(asking(ASKED_BYTES, ANSWERED_BYTES), timeout=WAIT_SECONDS)) == ANSWERED_BYTES


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda each: each.name)
def test_client_compressed_unary(edge: str, compression: grpc.Compression) -> None:
    """Compressed and plain calls take turns on one connection; a request of zeros in a few hundred bytes was compressed."""
    asked = asking(ASKED_BYTES, 1)
    with port(edge, answering) as server, Relay(server.port) as relay, relay.channel() as client:
        for each in (compression, grpc.Compression.NoCompression, compression):
            before = relay.asked_bytes
            assert answered(unary(client)(asked, timeout=WAIT_SECONDS, compression=each)) == 1
            whole = relay.asked_bytes - before > ASKED_BYTES
            assert whole == (each is grpc.Compression.NoCompression)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda each: each.name)
def test_client_compressed_streaming(edge: str, compression: grpc.Compression) -> None:
    requests = [asking(*each) for each in PING_PONG]
    with port(edge, answering) as server, channel(server) as client:
        answers = stream(client, iter(requests), compression=compression)
        assert [streamed(each) for each in answers] == [size for _, size in PING_PONG]
        assert goes_on(client)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda each: each.name)
def test_server_compressed_unary(edge: str, compression: grpc.Compression) -> None:
    """Ours answers in the encoding of the request; the public server, which does not say what that was, answers plainly."""
    packs = edge == NGHTTP2 and compression is not grpc.Compression.NoCompression
    with port(edge, answering) as server, Relay(server.port) as relay, relay.channel() as client:
        answer = unary(client)(asking(1, ANSWERED_BYTES), timeout=WAIT_SECONDS, compression=compression)
        assert answered(answer) == ANSWERED_BYTES
        assert (relay.answered_bytes > ANSWERED_BYTES) == (not packs)


def test_ping_pong(edge: str) -> None:
    requests = queue.SimpleQueue[bytes | None]()
    with port(edge, answering) as server, channel(server) as client:
        opened = stream(client, iter(requests.get, None))
        for asked_bytes, answered_bytes in PING_PONG:
            requests.put(asking(asked_bytes, answered_bytes))
            assert streamed(next(opened)) == answered_bytes
        requests.put(None)
        assert list(opened) == []
        assert opened.code() is CODE.OK


def test_empty_stream(edge: str) -> None:
    with port(edge) as server, channel(server) as client:
        opened = stream(client, iter(()))
        assert list(opened) == []
        assert opened.code() is CODE.OK


def test_custom_metadata(edge: str) -> None:
    """It disturbs nobody; what an edge reads of metadata is in test_edges.py (tokens) and test_edges_streams.py."""
    with port(edge, answering) as server, channel(server) as client:
        asked = asking(ASKED_BYTES, ANSWERED_BYTES)
        assert answered(unary(client)(asked, timeout=WAIT_SECONDS, metadata=CUSTOM_METADATA)) == ANSWERED_BYTES
        (message,) = stream(client, iter([asked]), metadata=CUSTOM_METADATA)
        assert streamed(message) == ANSWERED_BYTES


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_status_code_and_message(edge: str, code: Code) -> None:
    asked = failing(code, MESSAGES["plain"])
    with port(edge, answering) as server, channel(server) as client:
        told = (CODE[code.name], MESSAGES["plain"])
        assert refusal(lambda: unary(client)(asked, timeout=WAIT_SECONDS)) == told
        assert refusal(lambda: next(stream(client, iter([asked]), metadata=ENDS_ON_ERROR))) == told
        assert goes_on(client)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_special_status_message(edge: str, message: str) -> None:
    asked = failing(Code.INTERNAL, message)
    with port(edge, answering) as server, channel(server) as client:
        assert refusal(lambda: unary(client)(asked, timeout=WAIT_SECONDS)) == (CODE.INTERNAL, message)
        assert refusal(lambda: next(stream(client, iter([asked]), metadata=ENDS_ON_ERROR))) == (CODE.INTERNAL, message)


@pytest.mark.parametrize("path", [f"/{SERVICE}/UnimplementedCall", "/no.such.Service/UnimplementedCall"])
def test_unimplemented_method_and_service(edge: str, path: str) -> None:
    with port(edge, answering) as server, channel(server) as client:
        assert refusal(lambda: client.unary_unary(path)(b"", timeout=WAIT_SECONDS))[0] is CODE.UNIMPLEMENTED
        opened = client.stream_stream(path)(iter([b"one", b"two"]), timeout=WAIT_SECONDS)
        assert refusal(lambda: next(opened))[0] is CODE.UNIMPLEMENTED
        assert goes_on(client)


def test_cancel_after_begin(edge: str) -> None:
    with port(edge, answering) as server, channel(server) as client:
        requests = queue.SimpleQueue[bytes | None]()
        opened = stream(client, iter(requests.get, None))
        opened.cancel()
        assert refusal(lambda: next(opened))[0] is CODE.CANCELLED
        requests.put(None)
        assert goes_on(client)


def test_cancel_after_first_response(edge: str) -> None:
    with port(edge, answering) as server, channel(server) as client:
        requests = queue.SimpleQueue[bytes | None]()
        opened = stream(client, iter(requests.get, None))
        requests.put(asking(*PING_PONG[0]))
        assert streamed(next(opened)) == PING_PONG[0][1]
        opened.cancel()
        assert refusal(lambda: next(opened))[0] is CODE.CANCELLED
        requests.put(None)
        assert goes_on(client)


def sleeping(payload: bytes, call: Call) -> None:
    """Answers as it is asked to, but for "sleep", which it answers when nobody waits for it any more."""
    if payload == b"sleep":
        call.on_cancel(lambda: call.fail(Code.CANCELLED, "the client has gone"))
    else:
        answering(payload, call)


def test_timeout_on_sleeping_server(edge: str) -> None:
    with port(edge, sleeping) as server, channel(server) as client:
        assert refusal(lambda: unary(client)(b"sleep", timeout=0.001))[0] is CODE.DEADLINE_EXCEEDED
        assert refusal(lambda: next(stream(client, iter([b"sleep"]), timeout=0.001)))[0] is CODE.DEADLINE_EXCEEDED
        assert goes_on(client)
