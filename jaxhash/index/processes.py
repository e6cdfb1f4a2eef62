"""Gathering rows of numbers from all processes of `jax.distributed`, outside compiled programs."""

from collections.abc import Callable

import numpy as np
from jax.experimental.multihost_utils import process_allgather


def gather_rows(own_rows: Callable[[], np.ndarray], several: bool) -> np.ndarray:
    """Returns the rows of all processes, in the order of the processes; every process gets the same.

    Args:
        own_rows: returns the rows of this process, int32 `[m, c]`; m may differ between processes. If it raises in one
            process, the call raises in all: the others would wait for ever for its rows.
        several: whether there are several processes, all of which must make this call; if not, nothing is gathered.
    """
    if not several:
        return own_rows()
    try:
        rows, failure = own_rows(), None
    except BaseException as error:
        rows, failure = np.zeros((0, 1), np.int32), error
    counts = process_allgather(np.array([-1 if failure else len(rows)], np.int32))[:, 0]
    if failure:
        raise failure
    if (counts < 0).any():
        raise RuntimeError(f"process {int(np.argmin(counts))} failed; its own error says why")
    padded = np.zeros((max(1, counts.max()), rows.shape[1]), np.int32)
    padded[: len(rows)] = rows
    gathered = process_allgather(padded)
    return np.concatenate([part[:count] for part, count in zip(gathered, counts, strict=True)])
