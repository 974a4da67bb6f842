"""One rank of the MPI tests: every probe of the network twice; rank 0 writes the errors as JSON."""

import json
import sys
from pathlib import Path

from mpi4py import MPI

from streaming_attention.bandwidth.network import PROBES, prepare_probe

comm = MPI.COMM_WORLD
errors = {}
for probe in PROBES:
    ceiling = prepare_probe(probe, comm)
    errors[f"{probe.name} before"] = comm.allgather(ceiling.error())
    ceiling()
    ceiling()
    errors[f"{probe.name} after"] = comm.allgather(ceiling.error())
if comm.rank == 0:
    Path(sys.argv[1]).write_text(json.dumps(errors))
