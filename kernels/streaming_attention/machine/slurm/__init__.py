"""What a SLURM cluster is, has free, and has done: nodes, partitions, the queue, accounting.

The same answers come from three sources (:mod:`~streaming_attention.machine.slurm.cluster` chooses): pyslurm where one
that fits the site's SLURM is importable, the commands' JSON where it is dependable, their text everywhere else.
"""

from streaming_attention.machine.slurm.cluster import Cluster, fitting_machine, shapes_of
from streaming_attention.machine.slurm.commands import SlurmError, SlurmMissing
from streaming_attention.machine.slurm.model import Account, Node, Partition, QueuedJob

__all__ = [
    "Account",
    "Cluster",
    "Node",
    "Partition",
    "QueuedJob",
    "SlurmError",
    "SlurmMissing",
    "fitting_machine",
    "shapes_of",
]
