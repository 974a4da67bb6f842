"""One rank of the MPI tests: the last rank fails in the midst of a call while the others wait for its part.

``python -m mpi4py raise_on_one_rank.py STRATEGY`` under mpiexec.
"""

import sys

from mpi4py import MPI

from streaming_attention.inputs import make_inputs
from streaming_attention.prepared import COMPUTE
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

comm, options = MPI.COMM_WORLD, {"strategy": sys.argv[1]}
method, workload = METHODS["streaming"], Workload("x", queries=40, keys=100, heads=4, kv_heads=4, head_dim=16)


def fail():
    raise RuntimeError("the last rank has had enough")


held = method.distributed_holding(workload, comm.rank, comm.size, 1, **method.complete(options))
prepared = method.load(comm.size)(make_inputs(workload, 1, held), 1, comm, options)
if comm.rank == comm.size - 1:
    first = next(place for place, stage in enumerate(prepared.stages) if stage.kind == COMPUTE)
    prepared.stages.insert(first, (COMPUTE, fail))
prepared.run()
