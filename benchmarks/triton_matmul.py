"""A plain tiled matrix product in Triton, for :mod:`triton_kernels`; Triton reads kernels from files."""

import triton
import triton.language as tl


@triton.jit
def matmul(a, b, c, size, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, size, BK):
        x = tl.load(a + rows[:, None] * size + (start + inner)[None, :])
        y = tl.load(b + (start + inner)[:, None] * size + columns[None, :])
        total = tl.dot(x, y, total, input_precision="ieee")
    tl.store(c + rows[:, None] * size + columns[None, :], total)


def run(a, b, c) -> None:
    """c = a b of square matrices whose size the tiles divide. Of tiles of 128 to 1024 each, the fastest (Zen 5)."""
    size = len(a)
    matmul[(size // 512, size // 1024)](a, b, c, size, BM=512, BN=1024, BK=128)
