# Before the first job on a cluster: SLURM answers, no other run is at work in this folder, and what a killed run left in the
# queue is cancelled. Its finished points stay; the others are measured again.

from snakemake.exceptions import WorkflowError

from streaming_attention.campaign import takeover
from streaming_attention.machine.slurm import SlurmError

LOCKS = []  # held until this process ends


def take_over_cluster():
    """Does nothing on a single machine."""
    if not workflow.non_local_exec:
        return
    try:
        lock, cancelled = takeover.take_over(os.getcwd())
    except (takeover.Busy, SlurmError) as error:
        raise WorkflowError(str(error))
    LOCKS.append(lock)
    if cancelled:
        print(f"cancelled jobs of an earlier run: {', '.join(cancelled)}", file=sys.stderr)
