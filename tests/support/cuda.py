"""The GPU of the tests of CUDA."""

from __future__ import annotations

DEVICE = "cuda:0"
