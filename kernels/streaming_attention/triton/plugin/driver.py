"""The backend as Triton's runtime sees it: one device, the CPU, and how to launch on it."""

from __future__ import annotations

import time

import numpy as np
import triton.runtime.jit as jit
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from streaming_attention.triton.cpu.kernel import Compiled, Kernel, address_of, get_threads
from streaming_attention.triton.cpu.target import make_target
from streaming_attention.triton.plugin import NAME
from streaming_attention.triton.plugin.arrays import specialize


class Launcher:
    """Calls a kernel with the arguments that Triton's runtime bound.

    Parameters
    ----------
    source, metadata
        Of the compiled kernel, as Triton keeps them.
    """

    def __init__(self, source, metadata):
        self.kinds = list(source.signature.values())
        self.simple = not any(isinstance(kind, tuple) or str(kind).startswith("tensordesc") for kind in self.kinds)
        self.pointers = [str(kind).startswith("*") for kind in self.kinds]
        self.passed = [place for place, kind in enumerate(self.kinds) if kind != "constexpr"]

    def __call__(self, x, y, z, stream, kernel: Kernel, packed, metadata, enter, leave, *arguments) -> None:
        if enter is not None:
            enter(metadata)
        kernel.launch((x, y, z), self._simple(arguments) if self.simple else list(_flat(self.kinds, arguments)))
        if leave is not None:
            leave(metadata)

    def _simple(self, arguments) -> list:
        pointers = self.pointers
        return [address_of(arguments[place]) if pointers[place] else arguments[place] for place in self.passed]


def _flat(kinds, arguments):
    """Values of tuples and tensor descriptors one after another, as TTIR's function takes them."""
    for kind, argument in zip(kinds, arguments, strict=True):
        if isinstance(kind, tuple):
            yield from _flat(kind, argument)
        elif str(kind).startswith("tensordesc"):
            for part in _decompose(argument):
                yield part if isinstance(part, (int, bool)) else address_of(part)
        elif kind != "constexpr":
            yield address_of(argument) if str(kind).startswith("*") else argument


def _decompose(descriptor):
    """A host's tensor descriptor as the arguments that Triton's passes make of it; how many depends on the release."""
    import triton.backends.driver as driver

    if hasattr(driver, "decompose_descriptor"):
        return driver.decompose_descriptor(descriptor)
    sizes = (*descriptor.shape, *descriptor.strides)
    flags = (descriptor.padding == "nan", getattr(descriptor, "round_f32_to_tf32", False))
    return [descriptor.base, *sizes, *flags, *sizes]


class Utilities:
    """What Triton asks a device's driver library for."""

    def get_device_properties(self, device: int) -> dict:
        """What kernels size their grids by: a thread is a multiprocessor, with as many "registers" as a GPU's has."""
        return {
            "max_shared_mem": 2**31, "multiprocessor_count": get_threads(), "warpSize": 1, "max_num_regs": 2**16,
            "max_threads_per_sm": 1024,
        }  # fmt: skip

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple:
        """Module, function, registers, spilled registers, most warps."""
        compiled = Compiled.from_bytes(binary)
        kernel = Kernel(compiled)
        return kernel, kernel, make_target(compiled.target).registers, 0, 2**31

    def unload_module(self, module) -> None:
        """The code lives as long as the kernel object does."""


class Driver(DriverBase):
    """Triton's driver of the CPU."""

    def __init__(self):
        self.utils = Utilities()
        self.launcher_cls = Launcher
        jit.native_specialize_impl = specialize  # so that NumPy arrays can be arguments

    @staticmethod
    def is_active() -> bool:
        """Whether nothing else can run a kernel: a GPU, or another CPU backend, goes first.

        ``TRITON_DEFAULT_BACKEND=streaming_cpu``, or :func:`streaming_attention.triton.activate`, asks for this one.
        """
        from triton.backends import backends

        return not any(backend.driver.is_active() for name, backend in backends.items() if name != NAME)

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind

    def get_current_target(self) -> GPUTarget:
        return GPUTarget(NAME, make_target().name, 1)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self):
        import torch

        return torch.device("cpu")

    def get_device_interface(self):
        return HostClock

    def get_benchmarker(self):
        return benchmark

    def get_empty_cache_for_benchmark(self):
        return np.zeros(1 << 25, np.uint8)

    def clear_cache(self, cache) -> None:
        cache.fill(0)


class HostClock:
    """The part of ``torch.cuda`` that Triton's benchmarking uses, by the host's clock."""

    class Event:
        def __init__(self, enable_timing: bool = True):
            self.seconds = 0.0

        def record(self, stream=None) -> None:
            self.seconds = time.perf_counter()

        def elapsed_time(self, end) -> float:
            return 1e3 * (end.seconds - self.seconds)

    @staticmethod
    def synchronize(device=None) -> None:
        """A launch returns when it is done."""

    @staticmethod
    def current_device() -> int:
        return 0


def benchmark(call, quantiles=None, warmup: int = 2, rep: int = 10, **_):
    """Milliseconds of a call, for the autotuner: its quantiles, or the median."""
    for _turn in range(warmup if warmup < 10 else 2):
        call()
    samples = []
    for _turn in range(10):
        start = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - start))
    return [float(np.quantile(samples, q)) for q in quantiles] if quantiles else float(np.median(samples))
