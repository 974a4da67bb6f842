"""What a controller hands to the processes of its jobs: the machine it has seen, through the environment.

A job's processes read the config again. On a node, or in the part of it that a job may use, ``machine: auto`` sees
another machine, ``powers`` are other numbers, and the job's own point might not exist.
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping

from streaming_attention.machine.topology import Machine

VARIABLE = "STREAMING_ATTENTION_MACHINE"


def hand_over(machine: Machine, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell child processes, and jobs that are submitted with this environment."""
    environ[VARIABLE] = json.dumps(machine.as_config())


def machine_of_controller(environ: MutableMapping[str, str] = os.environ) -> Machine | None:
    """The machine that was handed over; None in the controller itself."""
    text = environ.get(VARIABLE)
    return Machine(**json.loads(text)) if text else None
