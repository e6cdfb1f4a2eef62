"""What the processes of `jax.distributed` tell each other outside compiled programs: rows of numbers."""

from collections.abc import Callable

import numpy as np
from jax.experimental.multihost_utils import process_allgather


def gather_rows(own_rows: Callable[[], np.ndarray], several: bool) -> np.ndarray:
    """The rows of all processes, one after the other; every process gets the same.

    Args:
        own_rows: gives int32 `[m, c]`; m may differ between processes. Where it raises, all processes do, as the others
            would otherwise wait for rows that never come.
        several: whether there are several processes to ask, all of which are making this call.
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
