"""What the ranks of a public call tell each other before it: whether all can go on, mean the same call, and hold what.

A rank that raised alone would leave the others waiting for its messages. So everything that may fail is done before
the first of them, and an error on any rank is raised on all.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from mpi4py import MPI

T = TypeVar("T")
_KINDS = (TypeError, ValueError, MemoryError)


def private(comm) -> MPI.Intracomm:
    """A duplicate of a communicator, where no message of ours can meet one of the caller's.

    Made by the first call over a communicator, together, and kept with it until it is freed.

    Raises
    ------
    TypeError, ValueError
        Not a communicator, or one that joins two groups. Here alone: without it there is nobody to tell.
    """
    if not isinstance(comm, MPI.Comm):
        raise TypeError(f"comm: {type(comm).__name__} is not an mpi4py communicator")
    if comm == MPI.COMM_NULL or comm.Is_inter():
        raise ValueError(f"comm: {comm!r} has no ranks of its own; must be a communicator within one group")
    ours = comm.Get_attr(_key())
    if ours is None:
        ours = comm.Dup()
        comm.Set_attr(_key(), ours)
    return ours


@functools.cache
def _key() -> int:
    return MPI.Comm.Create_keyval(delete_fn=lambda _comm, _key, ours: ours.Free())


def together(comm, act: Callable[[], tuple[T, list[int]]], count: int = 0) -> tuple[T, np.ndarray]:
    """What this rank's ``act`` gives, and the numbers that every rank's gave.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    act : callable
        Returns something of this rank's own, and `count` whole numbers for all; sends no messages.

    Returns
    -------
    own : object
    numbers : ndarray, int64, (ranks, count)

    Raises
    ------
    Exception
        What was raised here; else what was raised on the first rank that failed.
    """
    mine, own, failure = np.zeros(count + 1, np.int64), None, None
    try:
        own, mine[1:] = act()
    except Exception as error:
        failure, mine[0] = error, 1
    everyone = np.empty((comm.Get_size(), count + 1), np.int64)
    comm.Allgather(mine, everyone)
    failed = np.flatnonzero(everyone[:, 0])
    if failed.size:
        _raise(comm, int(failed[0]), failure)
    return own, everyone[:, 1:]


def _raise(comm, first: int, failure: Exception | None) -> None:
    """This rank's own error, or that of the first rank that has one."""
    kind = next((place for place, known in enumerate(_KINDS) if isinstance(failure, known)), None)
    kind, text = comm.bcast((kind, f"{failure}"), root=first)
    if failure is not None:
        raise failure
    raise (RuntimeError if kind is None else _KINDS[kind])(f"rank {first}: {text}")


def code_of(value) -> int:
    """A number that tells values apart; of an array, its contents."""
    if isinstance(value, np.ndarray):
        return zlib.crc32(value.tobytes(), code_of((value.shape, str(value.dtype))))
    return zlib.crc32(repr(value).encode())


def check_alike(rank: int, values: Mapping, codes: np.ndarray) -> None:
    """That every rank was given the same.

    Parameters
    ----------
    values : mapping of str
        This rank's, by name.
    codes : ndarray, (ranks, values)
        Every rank's.

    Raises
    ------
    ValueError
        On every rank.
    """
    for name, column in zip(values, codes.T, strict=True):
        others = np.flatnonzero(column != column[rank])
        if others.size:
            given = f"{values[name]!r} on rank {rank}, something else on rank {others[0]}"
            raise ValueError(f"{name}: {given}; must be the same on all ranks")
