"""The backend as Triton's compiler sees it: TTIR through Triton's own passes, then our machine code."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, fields

from triton import knobs
from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget

from streaming_attention.triton.cpu.engine import compile_object
from streaming_attention.triton.cpu.kernel import Compiled, lower_ttir
from streaming_attention.triton.cpu.store import compiler_digest
from streaming_attention.triton.cpu.target import make_target
from streaming_attention.triton.plugin import NAME


@dataclass(frozen=True)
class Options:
    """Launch options that Triton's front end asks for.

    Warps, stages and clusters mean nothing here and are accepted.

    Raises
    ------
    AssertionError
        A number of warps that no GPU would take.
    """

    num_warps: int = 4
    warp_size: int = 1
    num_ctas: int = 1
    num_stages: int = 1
    arch: str = ""
    debug: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    extern_libs: tuple = ()
    supported_fp8_dtypes: tuple = ("fp8e4b8", "fp8e4nv", "fp8e5", "fp8e5b16")
    deprecated_fp8_dot_operand_dtypes: tuple = ()
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    max_num_imprecise_acc_default: int = 0
    backend_name: str = NAME
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False  # Triton 3.9's runtime passes it
    ir_override: str | None = None
    maxnreg: int | None = None
    waves_per_eu: int = 0
    matrix_instr_nonkdim: int = 0
    kpack: int = 1

    def __post_init__(self):
        assert self.num_warps > 0 and not self.num_warps & (self.num_warps - 1), "num_warps must be a power of 2"

    def hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()


class Compiler(BaseBackend):
    """Triton's ``BaseBackend`` for this CPU."""

    binary_ext = "kernel"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return target.backend == NAME

    def hash(self) -> str:
        """Compiler's sources and CPU: a change of either must miss Triton's disk cache."""
        return compiler_digest(make_target(self.target.arch))

    def parse_options(self, options: dict) -> Options:
        known = {field.name for field in fields(Options)}
        given = {key: value for key, value in options.items() if key in known and value is not None}
        return Options(**{"arch": self.target.arch, "enable_fp_fusion": knobs.language.default_fp_fusion, **given})

    def pack_metadata(self, metadata) -> tuple:
        return ()

    def get_codegen_implementation(self, options) -> dict:
        return {"min_dot_size": lambda left, right: (1, 1, 1)}

    def get_module_map(self) -> dict:
        """libdevice's functions go by their CUDA names; the lowering calls the C library's."""
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, context) -> None:
        """Triton's own dialects are enough."""

    def add_stages(self, stages: dict, options: Options, language=None) -> None:
        stages["ttir"] = self.make_ttir
        stages["llir"] = lambda module, metadata: self.make_llir(module, metadata, options)
        stages[self.binary_ext] = self.make_kernel

    @staticmethod
    def make_ttir(module, metadata, options: Options | None = None):
        """Triton's target-independent passes."""
        module = _all_inline(module)
        manager = ir.pass_manager(module.context)
        manager.enable_debug()
        passes.common.add_inliner(manager)
        if hasattr(passes.ttir, "add_rewrite_tensor_pointer"):
            passes.ttir.add_rewrite_tensor_pointer(manager)
        passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
        passes.common.add_canonicalizer(manager)
        passes.ttir.add_combine(manager)
        passes.ttir.add_reorder_broadcast(manager)
        passes.common.add_cse(manager)
        passes.ttir.add_triton_licm(manager)
        passes.common.add_symbol_dce(manager)
        passes.ttir.add_loop_unroll(manager)
        manager.run(module, "make_ttir")
        return module

    def make_llir(self, module, metadata, options: Options) -> str:
        """LLVM IR, with what the launcher must know; "shared" memory is a program's scratch."""
        text, head = lower_ttir(str(module), make_target(self.target.arch))
        metadata.update(name=head["name"], shared=head["scratch"], head=head)
        return text if options.enable_fp_fusion else text.replace(" contract ", " ")

    def make_kernel(self, text: str, metadata) -> bytes:
        """Machine code."""
        return Compiled(code=compile_object(text, make_target(self.target.arch)), **metadata["head"]).to_bytes()


def _all_inline(module):
    """The module with functions marked ``noinline`` inlined all the same: they can't be called, and code size is no
    concern here.
    """
    text = str(module)
    if "noinline = true" not in text:
        return module
    with tempfile.NamedTemporaryFile("w", suffix=".ttir") as file:
        file.write(text.replace("noinline = true", "noinline = false"))
        file.flush()
        inlined = ir.parse_mlir_module(file.name, module.context)
    inlined.context = module.context
    return inlined
