"""Rows of numbers on their way between a tensor's format and strides and the fp32 or words that kernels compute with.

Numbers that lie side by side go by whole vectors, the rest one by one.
"""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.convert import (
    BF16,
    FP16,
    FP32,
    load_scalar_widened,
    load_widened,
    size_of,
    store_narrowed,
    store_scalar_narrowed,
)
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, load_i16, store_f32, store_i16
from streaming_attention.simd.vectors import load, store


@jit
def widen_row(isa, form, source, step, count, target, size):
    """`count` numbers of a format (a place in ``simd.convert.FORMATS``) as fp32, and zeros up to `size` bytes."""
    if form == 0:
        widen(isa, FP32, source, step, count, target, size)
    elif form == 1:
        widen(isa, BF16, source, step, count, target, size)
    else:
        widen(isa, FP16, source, step, count, target, size)


@jit
def widen(isa, storage, source, step, count, target, size):
    """The same for a format that is known to the compiler."""
    whole = count - count % lanes(isa) if step == size_of(storage) else 0
    for c in range(0, whole, lanes(isa)):
        store(load_widened(isa, storage, source + c * step), target + 4 * c)
    for c in range(whole, count):
        store_f32(load_scalar_widened(storage, source + c * step), target + 4 * c)
    for at in range(4 * count, size, 4):
        store_f32(np.float32(0), target + at)


@jit
def narrow_row(isa, form, source, count, target, step):
    """`count` fp32 numbers as a format, `step` bytes apart."""
    if form == 0:
        _narrow(isa, FP32, source, count, target, step)
    elif form == 1:
        _narrow(isa, BF16, source, count, target, step)
    else:
        _narrow(isa, FP16, source, count, target, step)


@jit
def _narrow(isa, storage, source, count, target, step):
    whole = count - count % lanes(isa) if step == size_of(storage) else 0
    for c in range(0, whole, lanes(isa)):
        store_narrowed(storage, load(isa, source + 4 * c), target + c * step)
    for c in range(whole, count):
        store_scalar_narrowed(storage, load_f32(source + 4 * c), target + c * step)


@jit
def copy_halves(isa, source, step, count, target, size):
    """`count` numbers of 16 bits, `step` bytes apart, and zeros up to `size` bytes."""
    whole = 2 * count // (4 * lanes(isa)) * (4 * lanes(isa)) if step == 2 else 0
    for at in range(0, whole, 4 * lanes(isa)):
        store(load(isa, source + at), target + at)
    for at in range(whole, 2 * count, 2):
        store_i16(load_i16(source + at // 2 * step), target + at)
    for at in range(2 * count, size, 2):
        store_i16(0, target + at)
