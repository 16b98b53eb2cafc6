"""What an ONNX file shows without being run: the constants in it, and how rows flow through its graph."""

from serving.backends.onnx_graph import empties as empties
from serving.backends.onnx_graph import reading as reading
from serving.backends.onnx_graph import rows as rows
