"""Scalars at addresses, prefetch, atomics, and calls through an address: what plain Numba code has no word for.

Addresses are int64 in bytes; nothing here checks bounds.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.vectors import (
    F32,
    I16,
    I32,
    I64,
    emit_load,
    emit_pointer,
    emit_prefetch,
    emit_store,
    llvm_call,
)

VOID = ir.VoidType()


@intrinsic
def load_f32(typingctx, address):
    def codegen(_context, builder, _signature, args):
        return emit_load(builder, args[0], F32)

    return types.float32(types.int64), codegen


@intrinsic
def store_f32(typingctx, value, address):
    def codegen(context, builder, _signature, args):
        emit_store(builder, *args)
        return context.get_dummy_value()

    return types.void(types.float32, types.int64), codegen


@intrinsic
def load_i32(typingctx, address):
    def codegen(_context, builder, _signature, args):
        return builder.sext(emit_load(builder, args[0], I32), I64)

    return types.int64(types.int64), codegen


@intrinsic
def store_i32(typingctx, value, address):
    def codegen(context, builder, _signature, args):
        emit_store(builder, builder.trunc(args[0], I32), args[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_i16(typingctx, address):
    """The 16 bits at `address`, the upper ones 0."""

    def codegen(_context, builder, _signature, args):
        return builder.zext(emit_load(builder, args[0], I16, align=1), I64)

    return types.int64(types.int64), codegen


@intrinsic
def store_i16(typingctx, value, address):
    def codegen(context, builder, _signature, args):
        emit_store(builder, builder.trunc(args[0], I16), args[1], align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_i64(typingctx, address):
    def codegen(_context, builder, _signature, args):
        return emit_load(builder, args[0], I64, align=8)

    return types.int64(types.int64), codegen


@intrinsic
def store_i64(typingctx, value, address):
    def codegen(context, builder, _signature, args):
        emit_store(builder, *args, align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at `address` in every cache level. Any address will do: a bad one is ignored."""

    def codegen(context, builder, _signature, args):
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


# --- between threads: all sequentially consistent ------------------------------------------------------------------


@intrinsic
def atomic_load(typingctx, address):
    def codegen(_context, builder, _signature, args):
        return builder.load_atomic(emit_pointer(builder, args[0], I64), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, value, address):
    def codegen(context, builder, _signature, args):
        builder.store_atomic(args[0], emit_pointer(builder, args[1], I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """Add and return what was there before."""

    def codegen(_context, builder, _signature, args):
        return builder.atomic_rmw("add", emit_pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def compare_and_swap(typingctx, address, expected, value):
    """Store `value` if `expected` is there; whether it was."""

    def codegen(_context, builder, _signature, args):
        pointer = emit_pointer(builder, args[0], I64)
        pair = builder.cmpxchg(pointer, args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_task(typingctx, function, isa, job, task, scratch):
    """Call the kernel at address `function`: ``kernel(isa, job, task, scratch)``; see :mod:`..streaming.pool`."""

    def codegen(context, builder, _signature, args):
        function_type = ir.FunctionType(VOID, [args[1].type, I64, I64, I64])
        builder.call(builder.inttoptr(args[0], function_type.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, isa, types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop (nothing where the target has no such instruction)."""

    def codegen(context, builder, _signature, args):
        if "x86_64" in builder.module.triple or "amd64" in builder.module.triple:
            llvm_call(builder, "llvm.x86.sse2.pause", VOID)
        return context.get_dummy_value()

    return types.void(), codegen
