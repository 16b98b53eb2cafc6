"""Whether ONNX Runtime may be given empty tensors: some of its kernels end the whole process on them.

`LSTM` with no rows and `GRU` with no steps do, in 1.32: they throw an exception from a thread of their own. What is in the
list below has been seen to answer, or to refuse by an exception: tests/contract/test_empty_tensors.py runs each of it.
"""

from __future__ import annotations

from protos import onnx_graph_pb2 as pb
from serving.backends.onnx_graph import reading

# Operators that raise, if anything, where a size is 0.
KNOWN = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv ConvTranspose Cos
    CumSum Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherND Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Min Mod Mul Neg
    NonZero Not Or Pad Pow Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu
    Reshape ReverseSequence Round Selu Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze
    StringNormalizer Sub Tanh Tile TopK Transpose Unsqueeze Where ai.onnx.ml.LabelEncoder
    """.split()  # noqa: SIM905 - a name a line is four screens
)


def taken(model: pb.ModelProto) -> bool:
    """Whether every operator of the file is known to outlive empty tensors."""
    return reading.operators(model) <= KNOWN
