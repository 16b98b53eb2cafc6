"""How weights are kept smaller, and what is computed with when they are restored; whole files are in tests/contract."""

from __future__ import annotations

import numpy as np
import pytest

from export.errors import ExportError
from export.precision import FP16, FP32, INT8_WEIGHTS, Stored, rounded, store

MATRIX = np.array([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [-1e-3, 5e-4, 1e-3]], np.float32)
WEIGHTS = {"head.weight": MATRIX, "head.bias": np.array([0.1, 0.2, 0.3], np.float32)}


def test_fp32_keeps_everything_as_it_is() -> None:
    assert store(WEIGHTS, FP32) == {}
    assert rounded(WEIGHTS, {}) == WEIGHTS


@pytest.mark.parametrize("precision", [FP16, INT8_WEIGHTS])
def test_only_matrices_are_kept_smaller(precision: str) -> None:
    stored = store(WEIGHTS, precision)
    assert list(stored) == ["head.weight"]
    after = rounded(WEIGHTS, stored)
    assert after["head.bias"] is WEIGHTS["head.bias"]
    assert after["head.weight"].dtype == np.float32


def test_int8_has_a_scale_for_each_row() -> None:
    kept = store(WEIGHTS, INT8_WEIGHTS)["head.weight"]
    assert kept.array.dtype == np.int8
    assert kept.array.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 64, 127]]
    assert kept.scale is not None
    np.testing.assert_allclose(kept.scale, [[1], [1], [1e-3 / 127]], rtol=1e-6)
    np.testing.assert_allclose(kept.restored(), [[127, -64, 0], [0, 0, 0], [-1e-3, 64e-3 / 127, 1e-3]], rtol=1e-6)


def test_fp16_is_a_cast_and_back() -> None:
    kept = store(WEIGHTS, FP16)["head.weight"]
    assert (kept.array.dtype, kept.scale) == (np.float16, None)
    np.testing.assert_array_equal(kept.restored(), MATRIX.astype(np.float16).astype(np.float32))


def test_a_number_beyond_float16_is_refused_by_its_name() -> None:
    large = {"lstm.0.forward.weight_input": np.full((2, 2), 1e5, np.float32)}
    with pytest.raises(ExportError, match=r"lstm\.0\.forward\.weight_input holds 1e\+05, which is beyond float16"):
        store(large, FP16)
    assert store(large, INT8_WEIGHTS)["lstm.0.forward.weight_input"].array.tolist() == [[127, 127], [127, 127]]


def test_another_precision_is_refused() -> None:
    with pytest.raises(ExportError, match="precision is 'int4'; it must be one of fp32, fp16, int8-weights"):
        store(WEIGHTS, "int4")


def test_without_a_scale_nothing_is_multiplied() -> None:
    assert Stored(np.array([[3]], np.int8), None).restored().tolist() == [[3.0]]
