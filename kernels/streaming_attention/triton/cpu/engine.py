"""LLVM IR to machine code, through llvmlite: compile to an object file, load it, take an address."""

from __future__ import annotations

import threading
from functools import cache

from streaming_attention.triton.cpu.target import Target

_LOCK = threading.Lock()
"""LLVM's global state is not ours to use from several threads at once."""


@cache
def _initialized() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine(target: Target):
    import llvmlite.binding as llvm

    _initialized()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(
        cpu=target.cpu, features=target.feature_string, opt=3, reloc="pic", codemodel="default", jit=True
    )


def compile_object(text: str, target: Target) -> bytes:
    """Optimise a module and emit an object file.

    Vectors are explicit already, so LLVM's own vectorizers stay off; they only cost compile time.
    """
    import llvmlite.binding as llvm

    with _LOCK:
        machine = _machine(target)
        module = llvm.parse_assembly(text)
        module.triple, module.data_layout = machine.triple, str(machine.target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False
        options.loop_unrolling = False
        llvm.create_pass_builder(machine, options).getModulePassManager().run(
            module, llvm.create_pass_builder(machine, options)
        )
        return machine.emit_object(module)


class Loaded:
    """An object file in memory; keep it for as long as its code may run."""

    def __init__(self, code: bytes, target: Target):
        import llvmlite.binding as llvm

        with _LOCK:
            self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(target))
            self.engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self.engine.finalize_object()

    def address(self, name: str) -> int:
        """Address of a function."""
        with _LOCK:
            return self.engine.get_function_address(name)

    def variable(self, name: str) -> int:
        """Address of a global variable."""
        with _LOCK:
            return self.engine.get_global_value_address(name)
