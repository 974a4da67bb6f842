"""The log of a step that runs in one process: tracebacks go there, one line of an error to the terminal too."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def logged(path: str | os.PathLike) -> Iterator[None]:
    """Send standard error to a log; an exception ends the process with code 1 and one line that names the log.

    Raises
    ------
    SystemExit
        In place of the exception, whose traceback is in the log.
    """
    with open(path, "w") as log, redirect_stderr(log):
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            failure = error
        else:
            return
    print(f"{type(failure).__name__}: {failure} (log: {path})", file=sys.stderr)
    raise SystemExit(1)
