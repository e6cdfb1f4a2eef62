"""All-gather and all-to-all of rows between the processes of `jax.distributed`."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax import lax
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Blocks from each process to each other one in an exchange of equal parts.
NUM_BLOCKS = 32


def gather_rows(own_rows: Callable[[], np.ndarray], several: bool) -> np.ndarray:
    """Returns the rows of all processes, in the order of the processes, to every process.

    Args:
        own_rows: returns the rows of this process, int32 `[m, c]`; m may differ between processes. If it raises in one
            process, the call raises in all, since the others would wait forever for its rows.
        several: whether there are several processes, which must all make this call; if not, nothing is gathered.
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


def exchange_rows(parts: list[np.ndarray], mesh: Mesh) -> np.ndarray:
    """Sends each process its part, and returns the rows received, in the order of the sending processes.

    All processes must make this call. Blocks of fixed size pass through one device of each process, so that the memory
    beside the rows sent and received is small, however unequal the parts are.

    Args:
        parts: the rows to send to each process, int32 `[m, c]`.
        mesh: a mesh with devices of all processes.
    """
    count, own, width = len(parts), jax.process_index(), parts[0].shape[1]
    counts = gather_rows(lambda: np.array([[len(part) for part in parts]], np.int32), several=True)  # [from, to]
    block = max(1024, int(counts.sum(dtype=np.int64)) // (NUM_BLOCKS * count**2))
    received = np.empty((int(counts[:, own].sum(dtype=np.int64)), width), np.int32)
    ends = np.cumsum(counts[:, own], dtype=np.int64)
    devices = {device.process_index: device for device in mesh.devices.flat[::-1]}
    hosts = Mesh(np.array([devices[number] for number in range(count)]), ("hosts",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(hosts, PartitionSpec("hosts"))
    for start in range(0, int(counts.max()), block):
        sent = np.zeros((count, block, width), np.int32)
        for target, part in enumerate(parts):
            rows = part[start : start + block]
            sent[target, : len(rows)] = rows
        blocks = jax.make_array_from_process_local_data(sharding, sent)
        received_blocks = np.asarray(_exchange_blocks(blocks, mesh=hosts).addressable_data(0))
        for rows, piece in zip(np.split(received, ends[:-1]), received_blocks, strict=True):
            rows[start : start + block] = piece[: len(rows[start : start + block])]
    return received


@partial(jax.jit, static_argnames="mesh")
def _exchange_blocks(blocks: jax.Array, *, mesh: Mesh) -> jax.Array:
    """Sends block i of each process to process i: int32 `[p * p, m, c]`, sharded along its first axis."""
    spec = PartitionSpec("hosts")
    swap = partial(lax.all_to_all, axis_name="hosts", split_axis=0, concat_axis=0, tiled=True)
    return jax.shard_map(swap, mesh=mesh, in_specs=spec, out_specs=spec)(blocks)
