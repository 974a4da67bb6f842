import numpy as np
import pytest

from streaming_attention.bandwidth import gemm


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 200])
def test_product_is_right(size, threads):
    ceiling = gemm.prepare_gemm(size, threads)
    assert not ceiling.error() <= ceiling.tolerance  # nothing computed yet: NaN
    for _ in range(2):
        ceiling()
        assert ceiling.error() <= ceiling.tolerance
    ceiling.close()


def test_lower_precision_is_an_error(monkeypatch):
    ceiling = gemm.prepare_gemm(256, 1)
    matmul = np.matmul

    def in_half(a, b, out):
        out[:] = matmul(a.astype(np.float16).astype(np.float32), b)

    monkeypatch.setattr(np, "matmul", in_half)
    ceiling()
    monkeypatch.undo()
    assert ceiling.error() > ceiling.tolerance


def test_flops():
    assert gemm.flops_per_call(10) == 2000


def test_size_must_be_positive():
    with pytest.raises(ValueError, match="size: 0"):
        gemm.prepare_gemm(0, 1)
