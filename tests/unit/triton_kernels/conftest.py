"""Triton on this CPU for the tests that need it, with a disk cache of their own."""

import importlib
import itertools
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEADER = """
import triton
import triton.language as tl
"""


@pytest.fixture(scope="session")
def backend(tmp_path_factory):
    """Triton, launching on the CPU."""
    pytest.importorskip("triton")
    from triton import knobs

    import streaming_attention.triton

    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path_factory.mktemp("triton-cache"))
        streaming_attention.triton.activate()
        yield streaming_attention.triton


@pytest.fixture(scope="session")
def define(backend, tmp_path_factory):
    """``define(source) -> module``: Triton reads kernels from files, so their source goes into one."""
    folder = tmp_path_factory.mktemp("kernels")
    count = itertools.count()
    sys.path.insert(0, str(folder))

    def module(source: str):
        name = f"kernels_{next(count)}"
        (folder / f"{name}.py").write_text(HEADER + textwrap.dedent(source))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield module
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def interpret():
    """``interpret(*request)``: what Triton's interpreter makes of it; requests are those of ``interpreted.py``."""
    pytest.importorskip("triton")
    server = Path(__file__).with_name("interpreted.py")
    process = subprocess.Popen([sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(*request):
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer

    yield ask
    process.stdin.close()
    process.wait(timeout=60)
