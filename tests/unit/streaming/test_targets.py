"""Kernels compiled for processors that are not here: every instruction set gives machine code for its own target."""

import os
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit, types

from streaming_attention.simd import isa as isa_module
from streaming_attention.simd.isa import AVX512, ISAS, PORTABLE, IsaType, sources_digest
from streaming_attention.streaming.prefill import choose_kernel, prefill_task

# What the code must contain to be worth its name: full-width fused multiply-adds, or dots of bfloat16.
TELLTALE = {"avx512_bf16": "vdpbf16ps", "avx512": "%zmm", "avx2": "vfmadd231ps"}

COMPILE = """
import sys
from numba import types
from streaming_attention.simd.isa import ISAS, IsaType, sources_digest
from streaming_attention.streaming import backward, prefill
isa = ISAS[sys.argv[1]]
assert not isa.missing(), isa.missing()
words = prefill.prefill_words, backward.backward_words
for kernel in words if isa.has_bf16_dot else (prefill.prefill_task, backward.backward_task):
    compiled = kernel.get_compile_result(types.void(IsaType(isa, sources_digest()), *[types.int64] * 3))
    assert sys.argv[2] in compiled.library.get_asm_str()
"""


@pytest.mark.parametrize("name", TELLTALE)
def test_an_instruction_set_that_this_cpu_lacks_compiles_for_its_target(name, tmp_path):
    """A process that takes itself to be on such a CPU compiles the kernels and runs nothing of them."""
    isa = ISAS[name]
    if not isa.missing():
        pytest.skip("runs here, so other tests compile it")
    compile_elsewhere(isa, tmp_path)


def compile_elsewhere(isa, cache):
    features = ",".join(f"+{feature}" for feature in isa.requires)
    environment = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", COMPILE, isa.name, TELLTALE[isa.name]]
    subprocess.run(command, env=os.environ | environment, check=True)


@pytest.fixture(scope="module")
def portable_code() -> str:
    """LLVM IR of the portable kernel, compiled anew: Numba keeps none of what it caches."""
    kernel = njit(nogil=True, error_model="numpy")(prefill_task.py_func)
    compiled = kernel.get_compile_result(types.void(IsaType(PORTABLE, sources_digest()), *[types.int64] * 3))
    return compiled.library.get_llvm_str()


@pytest.mark.parametrize(
    "triple, cpu, instruction",
    [("aarch64-linux-gnu", "neoverse-n1", "fmla"), ("riscv64-linux-gnu", "generic-rv64", "fmadd.s")],
)
def test_the_portable_kernel_compiles_for_other_architectures(portable_code, triple, cpu, instruction):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM has no {triple}")
    module = llvm.parse_assembly(portable_code)
    machine = target.create_target_machine(cpu=cpu, features="+d,+f" if "riscv" in triple else "", opt=2)
    module.triple, module.data_layout = triple, str(machine.target_data)
    assert instruction in machine.emit_assembly(module)
    assert len(machine.emit_object(module)) > 10_000


@pytest.mark.skipif(bool(AVX512.missing()), reason="this CPU has no AVX-512")
def test_dots_are_gated_by_their_own_feature(monkeypatch):
    monkeypatch.setattr(isa_module, "host_features", lambda: dict.fromkeys(AVX512.requires, True))
    isa_module._best.cache_clear()
    isa, kernel = choose_kernel(np.dtype(np.uint16), np.dtype(np.uint16))
    isa_module._best.cache_clear()
    assert isa is AVX512
    assert kernel is prefill_task
