"""Run in the client's own environment, where nothing of ours can be imported: python triton_encodings.py ADDRESS.

Sends every datatype in every encoding to models that give back what they are given, and says on which line it stopped
believing. The models are those of tests/interop/test_encodings.py.
"""

import sys

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

DTYPES = {
    "BOOL": (np.bool_, "bool_contents"),
    "UINT8": (np.uint8, "uint_contents"),
    "UINT16": (np.uint16, "uint_contents"),
    "UINT32": (np.uint32, "uint_contents"),
    "UINT64": (np.uint64, "uint64_contents"),
    "INT8": (np.int8, "int_contents"),
    "INT16": (np.int16, "int_contents"),
    "INT32": (np.int32, "int_contents"),
    "INT64": (np.int64, "int64_contents"),
    "FP32": (np.float32, "fp32_contents"),
    "FP64": (np.float64, "fp64_contents"),
    "FP16": (np.float16, None),
}
TEXT = np.array([[b"", b"one"], ["\N{SNOWMAN}".encode(), b"nul \0 inside"]], dtype=object)


def values(dtype: type) -> np.ndarray:
    if dtype is np.bool_:
        return np.array([[True, False], [False, True]])
    if np.issubdtype(dtype, np.integer):
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max], [0, 7]], dtype)
    return np.array([[np.finfo(dtype).max, -0.0], [0.5, np.inf]], dtype)


def ask(client, model, datatype, array, **more):
    tensor = grpcclient.InferInput(f"in_{datatype.lower()}", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return client.infer(model, [tensor], **more).as_numpy(f"out_{datatype.lower()}")


def typed(model, datatype, array, field):
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name=f"in_{datatype.lower()}", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, field).extend(array.ravel().tolist())
    return request


def refused(said, call, *arguments, **named):
    """The call must be answered with INVALID_ARGUMENT, and these words."""
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        code, message = error.status(), error.message()
    except grpc.RpcError as error:
        code, message = f"StatusCode.{error.code().name}", error.details()
    else:
        raise AssertionError(f"answered, but should have said {said}")
    assert code == "StatusCode.INVALID_ARGUMENT", (code, message)
    assert said in message, message


def main() -> None:
    address = sys.argv[1]
    client = grpcclient.InferenceServerClient(address)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(
        grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)])
    )
    for datatype, (dtype, field) in DTYPES.items():
        model, array = f"identity_{datatype.lower()}", values(dtype)
        back = ask(client, model, datatype, array)
        assert (back.dtype, back.tobytes()) == (array.dtype, array.tobytes()), datatype
        if field:
            answer = stub.ModelInfer(typed(model, datatype, array, field))
            assert answer.raw_output_contents[0] == array.tobytes(), datatype
            assert not answer.outputs[0].HasField("contents")
            wrong = "fp64_contents" if field != "fp64_contents" else "fp32_contents"
            numbers = np.zeros((2, 2))
            refused("unexpected explicit tensor data", stub.ModelInfer, typed(model, datatype, numbers, wrong))
        else:
            numbers = np.zeros((2, 2))
            refused("raw_input_contents", stub.ModelInfer, typed(model, datatype, numbers, "fp32_contents"))
        empty = ask(client, model, datatype, np.zeros((2, 0), dtype))
        assert (empty.shape, empty.dtype) == ((2, 0), dtype), datatype
    for datatype, too_much in (("INT8", 128), ("UINT8", 256), ("INT16", -(2**15) - 1), ("UINT16", 2**16)):
        field = DTYPES[datatype][1]
        request = typed(f"identity_{datatype.lower()}", datatype, np.array([[0, too_much]]), field)
        refused(f"holds {too_much}, which is outside the range of {datatype}", stub.ModelInfer, request)

    halves = np.array([0x3FC0, 0xC000, 0x0000, 0x7F80], "<u2").tobytes()  # 1.5, -2, 0 and infinity
    request = pb.ModelInferRequest(model_name="identity_bf16", raw_input_contents=[halves])
    request.inputs.add(name="in_bf16", datatype="BF16", shape=[2, 2])
    assert stub.ModelInfer(request).raw_output_contents[0] == halves
    refused("raw_input", stub.ModelInfer, typed("identity_bf16", "BF16", np.zeros((2, 2)), "fp32_contents"))

    for model in ("identity_bytes", "bytes_in_tensorflow"):
        assert ask(client, model, "BYTES", TEXT).tolist() == TEXT.tolist(), model
        answer = stub.ModelInfer(typed(model, "BYTES", TEXT, "bytes_contents"))
        assert answer.raw_output_contents[0] == b"".join(
            len(element).to_bytes(4, "little") + element for element in TEXT.ravel()
        )
    anything = np.array([[b"\xff\xfe", b"\0"]], dtype=object)
    assert ask(client, "bytes_in_tensorflow", "BYTES", anything).tolist() == anything.tolist()
    refused("element 0 of input 'in_bytes'", ask, client, "identity_bytes", "BYTES", anything)
    for raw, said in (
        (b"\1\0\0\0a", "expected 2 string elements, got 1"),
        (b"\0\0\0\0" * 3, "unexpected number of string elements"),
        (b"\1\0\0", "incomplete string length indicator"),
        (b"\5\0\0\0abc", "incomplete string data"),
    ):
        request = pb.ModelInferRequest(model_name="identity_bytes", raw_input_contents=[raw])
        request.inputs.add(name="in_bytes", datatype="BYTES", shape=[1, 2])
        refused(said, stub.ModelInfer, request)

    array = np.random.default_rng(0).normal(size=(64, 300_000)).astype(np.float32)  # 77 MB each way
    assert ask(client, "identity_fp32", "FP32", array).tobytes() == array.tobytes()
    for algorithm in ("gzip", "deflate"):
        back = ask(client, "identity_fp32", "FP32", array[:4], compression_algorithm=algorithm)
        assert back.tobytes() == array[:4].tobytes()
    columns = np.asfortranarray(array[:3, :5])
    np.testing.assert_array_equal(ask(client, "identity_fp32", "FP32", columns), columns)

    classes(client)


def classes(client) -> None:
    scores = np.array([[0.25, 4.0, -1.0], [4.0, np.nan, 4.0]], np.float32)

    def best(count, model="identity_fp32", kind="fp32", array=scores):
        tensor = grpcclient.InferInput(f"in_{kind}", list(array.shape), kind.upper())
        tensor.set_data_from_numpy(array)
        wanted = grpcclient.InferRequestedOutput(f"out_{kind}", class_count=count)
        return client.infer(model, [tensor], outputs=[wanted]).as_numpy(f"out_{kind}").tolist()

    assert best(2) == [
        [b"4.000000:1:warm", b"0.250000:0:cold"],
        [b"4.000000:0:cold", b"4.000000:2"],
    ]
    assert [len(row) for row in best(100)] == [3, 3]
    assert best(1, "identity_int64", "int64", np.array([[5, 9]])) == [[b"9:1"]]
    refused("invalid value for 'classification' parameter", best, -1)
    text = np.array([[b"a"]], dtype=object)
    refused("unsupported type", best, 1, "identity_bytes", "bytes", text)
    refused("too large", best, 1, array=np.zeros((5, 250_000), np.float32))


if __name__ == "__main__":
    main()
