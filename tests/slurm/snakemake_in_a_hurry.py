"""Snakemake that looks at its jobs every two seconds.

The plugin waits longer from look to look, up to three minutes: nothing on a cluster, here most of a test.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)

if __name__ == "__main__":
    main()
