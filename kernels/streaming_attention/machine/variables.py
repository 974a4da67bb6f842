"""The environment variables that decide how libraries thread and which code they pick.

They must be settled before NumPy, Numba or torch are imported: each library reads them once. A job inherits
whatever the login shell or the site had set; the runner replaces what concerns threads, removes what caps a BLAS at
another processor's code path (seen: OPENBLAS_CORETYPE=Haswell halving sgemm on Zen 5), and records both.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

THREAD_COUNTS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
POLICIES = {
    "NUMBA_THREADING_LAYER": "workqueue",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_DYNAMIC": "FALSE",
    "OPENBLAS_THREAD_TIMEOUT": "20",
}
"""``workqueue`` is in every Numba wheel (omp needs the system's libgomp); passive waiting keeps one library's idle
threads off the cores while another library is measured: OpenBLAS's spin for 2**20 cycles instead of 2**26."""

_PREFIXES = ("OPENBLAS_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "NUMBA_", "ATEN_", "DNNL_", "GOTO_")
_KEPT = ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


def settle_variables(threads: int, environ: MutableMapping[str, str] = os.environ) -> dict:
    """Set every variable that steers threads and drop the others of the same libraries.

    Parameters
    ----------
    threads : int
        Threads of this rank.
    environ : mapping
        Changed in place; the process's own environment unless given.

    Returns
    -------
    dict
        ``{"set": {name: value}, "removed": {name: value it had}}``, for the record.
    """
    wanted = {name: str(threads) for name in THREAD_COUNTS} | POLICIES
    found = {name: value for name, value in environ.items() if name.startswith(_PREFIXES) and name not in _KEPT}
    for name in found:
        del environ[name]
    environ.update(wanted)
    removed = {name: value for name, value in found.items() if wanted.get(name) != value}
    return {"set": wanted, "removed": removed}
