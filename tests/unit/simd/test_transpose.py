"""Transposes between scattered rows and panels."""

import numpy as np
from numba import njit

from streaming_attention.simd.transpose import gather_block, scatter_block


@njit
def _gather(isa, table, offset, panel, stride):
    gather_block(isa, table, offset, panel, stride)


@njit
def _scatter(isa, table, offset, panel, stride):
    scatter_block(isa, table, offset, panel, stride)


def test_gather_then_scatter(isa, rng):
    side = isa.lanes
    source = rng.standard_normal((side, side + 3)).astype(np.float32)
    order = rng.permutation(side)
    table = source.ctypes.data + order * source.strides[0]
    panel = np.zeros((side, side + 5), np.float32)
    _gather(isa, table.ctypes.data, 8, panel.ctypes.data, panel.strides[0])
    assert (panel[:, :side] == source[order, 2 : side + 2].T).all()
    assert (panel[:, side:] == 0).all()

    target = np.zeros_like(source)
    table = target.ctypes.data + order * target.strides[0]
    _scatter(isa, table.ctypes.data, 8, panel.ctypes.data, panel.strides[0])
    assert (target[:, 2 : side + 2] == source[:, 2 : side + 2]).all()
    assert (target[:, :2] == 0).all() and (target[:, side + 2 :] == 0).all()
