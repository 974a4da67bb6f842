"""One rank of the MPI tests: the last rank fails while the others wait for its part."""

from mpi4py import MPI

from streaming_attention.inputs import make_inputs
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

comm = MPI.COMM_WORLD
prepared = METHODS["streaming"].load(comm.size)(
    make_inputs(Workload("x", keys=100, head_dim=16), 1, comm.rank, comm.size), 1, comm, {}
)
if comm.rank == comm.size - 1:
    raise RuntimeError("the last rank has had enough")
prepared.run()
