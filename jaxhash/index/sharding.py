"""An index spread over the devices of a mesh, each of which holds a contiguous range of the sorted codes.

Every device answers from its own range by the kernels of a whole index. Only answers are gathered: what travels is k
items a query from each device, however many codes there are. Since the ranges follow one another, taking the answers
shard by shard keeps items of equal distance in the order of the whole index.

The same code serves many hosts under `jax.distributed`: a process makes, holds and reads none but the shards of its own
devices. All processes then have to make the same calls in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxhash.index.hash_index import HashIndex, Sorted, check_size, layout, memory_of, sorted_arrays


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "offsets", "ids", "num_codes", "num_items"],
    meta_fields=["num_bits", "mesh", "axis_name"],
)
@dataclass(frozen=True, eq=False, repr=False)
class ShardedIndex:
    """The s shards of an index, one for each device along an axis of a mesh; made by `shard_index`.

    A shard is laid out as a `HashIndex`, and all have equal shapes. Each array here is those of the shards one after
    the other along the axis that is sharded:

    codes: uint32 `[w, s * blocks, g, L]`, in ascending order from shard to shard; no code is in two shards.
    offsets: int32 `[s * (capacity + 1)]`, counted from 0 in each shard.
    ids: int32 `[s * item_capacity]`, the user's numbers, as in the whole index.
    num_codes: int32 `[s]`, the number of distinct codes in each shard; a shard may be empty.
    num_items: int32 `[s]`, the number of items in each shard.
    num_bits: the number of bits of a code, `b` (static).
    mesh: the devices (static). Along its other axes the shards are copied.
    axis_name: the axis of the mesh that the shards lie along (static).
    """

    codes: jax.Array  # uint32 [w, s * blocks, g, L]
    offsets: jax.Array  # int32 [s * (capacity + 1)]
    ids: jax.Array  # int32 [s * item_capacity]
    num_codes: jax.Array  # int32 [s]
    num_items: jax.Array  # int32 [s]
    num_bits: int
    mesh: Mesh
    axis_name: str

    @property
    def num_words(self) -> int:
        """The number of 32-bit words of a code, `w`."""
        return self.codes.shape[0]

    @property
    def num_shards(self) -> int:
        """The number of shards, `s`."""
        return int(self.mesh.shape[self.axis_name])

    def __repr__(self) -> str:
        return f"ShardedIndex(num_shards={self.num_shards}, num_bits={self.num_bits}, mesh={dict(self.mesh.shape)})"


AnyIndex = HashIndex | ShardedIndex

# The arrays, and the axis of each along which the shards follow one another.
AXES = {"codes": 1, "offsets": 0, "ids": 0, "num_codes": 0, "num_items": 0}


def shard_index(index: HashIndex, mesh: Mesh, axis_name: str = "shards") -> ShardedIndex:
    """Spreads an index over the devices of a mesh.

    The distinct codes are cut into equal shares, so that all devices have equally much to compare. Under
    `jax.distributed` every process gives the same index, and puts only its own shards on its devices.

    Args:
        index: a `HashIndex`.
        mesh: a mesh of devices, such as `jax.make_mesh((8,), ("shards",), axis_types=(AxisType.Auto,))`.
        axis_name: the axis along which to cut; along the others, if any, the shards are copied.

    Returns:
        A `ShardedIndex`, which `search`, `radius_search`, `radius_search_padded` and `retrieve` take in place of the
        whole index, and answer the same.

    Raises:
        ValueError: the mesh has no such axis, or the axis is not of the type Auto, or the mesh leaves out devices of
            some processes only, or items have several codes.
        TypeError: `index` is no `HashIndex`, or `mesh` no mesh.
    """
    if not isinstance(index, HashIndex):
        raise TypeError(f"index must be a HashIndex, got {type(index).__name__}; see jaxhash.build_index")
    if index.multi:
        raise ValueError("an index of items with several codes can't be spread over devices; search it as a whole")
    check_mesh(mesh, axis_name)
    table, offsets, ids = sorted_arrays(index)
    cuts = cut_evenly(len(table), mesh.shape[axis_name])

    def part(number: int) -> Sorted:
        first, last = cuts[number], cuts[number + 1]
        items = offsets[first : last + 1]
        return table[first:last], items - items[0], ids[items[0] : items[-1]]

    most_codes, most_items = np.diff(cuts).max(), np.diff(offsets[cuts]).max()
    return assemble_shards(part, int(most_codes), int(most_items), index.num_bits, mesh, axis_name)


def check_mesh(mesh: Mesh, axis_name: str) -> None:
    """Raises unless an index can be spread over this axis of this mesh."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}; see jax.make_mesh")
    if axis_name not in mesh.shape:
        raise ValueError(f"axis_name must be an axis of the mesh, {', '.join(map(str, mesh.shape))}, got {axis_name!r}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            "the axes of the mesh must be of the type Auto, got "
            f"{mesh.axis_types}: make it with axis_types=(jax.sharding.AxisType.Auto,) * {len(mesh.shape)}"
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if len(processes) not in (1, jax.process_count()) or jax.process_index() not in processes:
        raise ValueError(
            f"the mesh must have devices of this process alone or of all {jax.process_count()} processes, "
            f"got those of {sorted(processes)}"
        )


def cut_evenly(count: int, num_shards: int) -> np.ndarray:
    """Where to cut `count` into equal shares: int64 `[s + 1]`, from 0 to `count`."""
    return np.array([count * i // num_shards for i in range(num_shards + 1)])


def assemble_shards(
    part: Callable[[int], Sorted], most_codes: int, most_items: int, num_bits: int, mesh: Mesh, axis_name: str
) -> ShardedIndex:
    """Puts shards on their devices.

    Args:
        part: what shard i holds; only called for the devices of this process, for one shard after the other.
        most_codes: how many codes the largest shard holds, on any process.
        most_items: how many items the largest shard holds, on any process.
        num_bits: the number of bits of a code.
        mesh: a mesh of devices.
        axis_name: its axis that the shards lie along.
    """
    check_size(max(most_codes, most_items), num_bits)
    num_shards = mesh.shape[axis_name]
    holders = _holders(mesh, axis_name)
    pieces: dict[str, list[jax.Array]] = {name: [] for name in AXES}
    for number, devices in holders.items():
        for name, array in layout(*part(number), most_codes, most_items).items():
            pieces[name] += [jax.device_put(np.atleast_1d(array), device) for device in devices]
    joined: dict[str, Any] = {}
    for (name, axis), spec in zip(AXES.items(), _specs(axis_name), strict=True):
        shape = list(pieces[name][0].shape)
        shape[axis] *= num_shards
        sharding = NamedSharding(mesh, spec)
        joined[name] = jax.make_array_from_single_device_arrays(tuple(shape), sharding, pieces[name])
    return ShardedIndex(**joined, num_bits=num_bits, mesh=mesh, axis_name=axis_name)


def _holders(mesh: Mesh, axis_name: str) -> dict[int, list[jax.Device]]:
    """The devices of this process that hold a shard, by its number."""
    num_shards = mesh.shape[axis_name]
    found: dict[int, list[jax.Device]] = {}
    places = NamedSharding(mesh, PartitionSpec(axis_name)).addressable_devices_indices_map((num_shards,))
    for device, place in places.items():
        start, _, _ = place[0].indices(num_shards) if place else (0, 0, 0)
        found.setdefault(start, []).append(device)
    return dict(sorted(found.items()))


def _specs(axis_name: str) -> tuple[PartitionSpec, ...]:
    return tuple(PartitionSpec(*[None] * axis, axis_name) for axis in AXES.values())


def map_shards(index: ShardedIndex, answer: Callable[[HashIndex, jax.Array], Any], queries: jax.Array) -> Any:
    """Applies `answer(shard, queries)` on every device, and gives all of them all answers.

    To be traced, and compiled to a single collective: one `all_gather` of the answers.

    Args:
        index: a `ShardedIndex`.
        answer: gives a pytree of int32 arrays.
        queries: uint32 `[..., w]`.

    Returns:
        The pytree, with the shards as the first axis of each array, in order.
    """

    def on_device(arrays: tuple[jax.Array, ...], queries: jax.Array) -> Any:
        flat, restored = ravel_pytree(answer(_shard(arrays, index.num_bits), queries))
        return jax.vmap(restored)(lax.all_gather(flat, index.axis_name))

    # Its check does not know that what is gathered is the same everywhere.
    mapped = jax.shard_map(
        on_device,
        mesh=index.mesh,
        in_specs=(_specs(index.axis_name), PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return mapped(tuple(getattr(index, name) for name in AXES), queries)


def _shard(arrays: Sequence[Any], num_bits: int) -> HashIndex:
    codes, offsets, ids, num_codes, num_items = arrays
    return HashIndex(codes, offsets, ids, num_codes[0], num_items[0], num_bits)


def local_shards(index: ShardedIndex) -> dict[int, HashIndex]:
    """The shards on the devices of this process, by number, without copying them; of each, one process has one.

    They are remembered, since the tables for probing live as long as the index they belong to.
    """
    return memory_of(index).remember("local shards", partial(_find_local_shards, index))


def _find_local_shards(index: ShardedIndex) -> dict[int, HashIndex]:
    found: dict[int, list[Any]] = {}
    for name, axis in AXES.items():
        array = getattr(index, name)
        for piece in array.addressable_shards:
            if piece.replica_id == 0:
                start, _, _ = piece.index[axis].indices(array.shape[axis])
                # Numbers are fetched, since search on the host asks for them all the time.
                data = np.asarray(piece.data) if name.startswith("num_") else piece.data
                found.setdefault(start * index.num_shards // array.shape[axis], []).append(data)
    return {number: _shard(arrays, index.num_bits) for number, arrays in sorted(found.items())}
