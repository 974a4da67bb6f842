"""Triton's interpreter as a process of its own: it reads requests and writes answers, pickled.

The interpreter is chosen by the environment when Triton is imported, so it can't share a process with the compiler.
Requests are ``("kernel", source, arrays, constants, grid)`` and ``("call", module, function, arguments, options)``; the
answer is the arrays after the kernel ran, the function's result, or an exception.
"""

import importlib
import itertools
import os
import pickle
import sys
import tempfile
import traceback

os.environ["TRITON_INTERPRET"] = "1"
COUNT = itertools.count()
DTYPES = {"fp32": "float32", "fp16": "float16", "i32": "int32"}


class Memory:
    """What the interpreter asks of a tensor, for memory at an address."""

    def __init__(self, address, dtype):
        self.address, self.dtype = address, dtype

    def data_ptr(self):
        return self.address

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def copy_(self, other):
        """Nothing was copied."""

    def new_empty(self, *_, **__):
        return Memory(self.address, self.dtype)

    def set_(self, storage, *_):
        self.address = storage.address

    def storage_offset(self):
        return 0

    size = stride = storage_offset


def run_kernel(source, arrays, constants, grid):
    """A kernel's source on arrays, which it may change."""
    name = f"interpreted_{next(COUNT)}"
    with open(os.path.join(FOLDER, f"{name}.py"), "w") as file:
        file.write(source)
    importlib.invalidate_caches()
    kernel = importlib.import_module(name).kernel
    memory = [Memory(array.__array_interface__["data"][0], array.dtype.name) for array in arrays]
    kernel[grid](*memory, **constants)
    return arrays


class Interpreted:
    """Stands for a compiled kernel of the package."""

    def __init__(self, specialization, isa=None):
        module = importlib.import_module(f"streaming_attention.triton.kernels.{specialization.module}")
        self.function = getattr(module, specialization.function)
        self.kinds = [kind for _, kind in specialization.signature if kind != "constexpr"]
        self.constants = dict(specialization.constants)

    def launch(self, grid, values, threads=None):
        pairs = zip(self.kinds, values, strict=True)
        arguments = [Memory(value, DTYPES[kind[1:]]) if kind[0] == "*" else value for kind, value in pairs]
        self.function[tuple(grid)](*arguments, **self.constants)

    def __call__(self, grid, *arguments, threads=None):
        from streaming_attention.triton.cpu.kernel import address_of

        pairs = zip(self.kinds, arguments, strict=True)
        self.launch(grid, [address_of(value) if kind[0] == "*" else value for kind, value in pairs])


def call(module, function, arguments, options):
    """A function of the package, its kernels interpreted."""
    module = importlib.import_module(f"streaming_attention.triton.{module}")
    module.kernel = Interpreted
    return getattr(module, function)(*arguments, **options)


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    FOLDER = tempfile.mkdtemp()
    sys.path.insert(0, FOLDER)
    while True:
        try:
            kind, *rest = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            answer = (run_kernel if kind == "kernel" else call)(*rest)
        except BaseException:
            answer = RuntimeError(traceback.format_exc())
        pickle.dump(answer, answers)
        answers.flush()
