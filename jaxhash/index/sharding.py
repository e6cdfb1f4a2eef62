"""Sharded indexes: each device of a mesh holds a contiguous range of the sorted codes.

Each device searches its own range with the kernels of a whole index. Only results are gathered: k items per query from
each device, for any number of codes. Ranges are consecutive, so results in the order of the shards keep ties in the
order of the whole index.

Under `jax.distributed`, each process builds, holds and reads only the shards of its own devices. All processes must
make the same calls in the same order.
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

from jaxhash.core.checks import check_kind
from jaxhash.index.hash_index import HashIndex, Sorted, cache_of, check_size, layout, sorted_arrays


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "offsets", "ids", "num_codes", "num_items"],
    meta_fields=["num_bits", "mesh", "axis_name", "multi"],
)
@dataclass(frozen=True, eq=False, repr=False)
class ShardedIndex:
    """The s shards of an index, one for each device along an axis of a mesh; built by `shard_index`.

    Each shard is laid out like a `HashIndex`, with equal shapes. Each array concatenates those of the shards:

    codes: uint32 `[w, s * blocks, g, L]`, in ascending order from shard to shard; no code is in two shards.
    offsets: int32 `[s * (capacity + 1)]`, counted from 0 in each shard.
    ids: int32 `[s * item_capacity]`, the ids of the whole index.
    num_codes: int32 `[s]`, the number of distinct codes in each shard; a shard may be empty.
    num_items: int32 `[s]`, the number of items in each shard.
    num_bits: the number of bits of a code, `b` (static).
    mesh: the devices (static). Shards are replicated along its other axes.
    axis_name: the axis of the mesh along which the index is sharded (static).
    multi: whether an id may belong to several codes (static), which may be in different shards.
    """

    codes: jax.Array  # uint32 [w, s * blocks, g, L]
    offsets: jax.Array  # int32 [s * (capacity + 1)]
    ids: jax.Array  # int32 [s * item_capacity]
    num_codes: jax.Array  # int32 [s]
    num_items: jax.Array  # int32 [s]
    num_bits: int
    mesh: Mesh
    axis_name: str
    multi: bool = False

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

# The axis along which each array is sharded.
AXES = {"codes": 1, "offsets": 0, "ids": 0, "num_codes": 0, "num_items": 0}


def shard_index(index: HashIndex, mesh: Mesh, *, axis_name: str = "shards") -> ShardedIndex:
    """Shards an index over the devices of a mesh.

    The distinct codes are divided evenly, so all devices do equal work. Under `jax.distributed`, every process passes
    the same index and puts only its own shards on its devices.

    Args:
        index: a `HashIndex`.
        mesh: a mesh of devices, such as `jax.make_mesh((8,), ("shards",), axis_types=(AxisType.Auto,))`.
        axis_name: the axis along which to shard; the shards are replicated along the others.

    Returns:
        A `ShardedIndex`. Searches and `retrieve` take it like the whole index and return the same results.

    Raises:
        ValueError: the mesh has no axis of this name or an axis of a type other than Auto, or its devices belong
            neither to this process alone nor to all processes.
        TypeError: `index` is not a `HashIndex`, or `mesh` is not a `Mesh`.
    """
    check_kind("index", index, HashIndex, "jaxhash.build_index")
    check_mesh(mesh, axis_name)
    table, offsets, ids = sorted_arrays(index)
    cuts = cut_evenly(len(table), mesh.shape[axis_name])

    def cut_shard(number: int) -> Sorted:
        first, last = cuts[number], cuts[number + 1]
        items = offsets[first : last + 1]
        return table[first:last], items - items[0], ids[items[0] : items[-1]]

    max_codes, max_items = int(np.diff(cuts).max()), int(np.diff(offsets[cuts]).max())
    return assemble_shards(cut_shard, max_codes, max_items, index.num_bits, mesh, axis_name, multi=index.multi)


def check_mesh(mesh: Mesh, axis_name: str) -> None:
    """Raises unless an index can be sharded along this axis of the mesh."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}; see jax.make_mesh")
    if axis_name not in mesh.shape:
        raise ValueError(f"axis_name must be an axis of the mesh, {', '.join(map(str, mesh.shape))}, got {axis_name!r}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            "mesh axes must be of the type Auto, got "
            f"{mesh.axis_types}: make it with axis_types=(jax.sharding.AxisType.Auto,) * {len(mesh.shape)}"
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if len(processes) not in (1, jax.process_count()) or jax.process_index() not in processes:
        raise ValueError(
            f"mesh must have devices of this process alone or of all {jax.process_count()} processes, "
            f"got devices of {sorted(processes)}"
        )


def cut_evenly(count: int, num_shards: int) -> np.ndarray:
    """Divides `count` evenly and returns the boundaries, int64 `[s + 1]`, from 0 to `count`."""
    return np.array([count * i // num_shards for i in range(num_shards + 1)])


def assemble_shards(
    get_shard: Callable[[int], Sorted],
    max_codes: int,
    max_items: int,
    num_bits: int,
    mesh: Mesh,
    axis_name: str,
    *,
    multi: bool,
) -> ShardedIndex:
    """Puts shards on their devices.

    Args:
        get_shard: returns the sorted arrays of shard i; called for the shards of this process only, in order.
        max_codes: the number of codes in the largest shard of all processes.
        max_items: the number of items in the largest shard of all processes.
        num_bits: the number of bits of a code.
        mesh: a mesh of devices.
        axis_name: the axis along which to shard.
        multi: whether an id may belong to several codes.
    """
    check_size(max(max_codes, max_items), num_bits)
    arrays = _put_arrays(lambda number: layout(*get_shard(number), max_codes, max_items), mesh, axis_name)
    return ShardedIndex(**arrays, num_bits=num_bits, mesh=mesh, axis_name=axis_name, multi=multi)


def _put_arrays(get_arrays: Callable[[int], dict[str, Any]], mesh: Mesh, axis_name: str) -> dict[str, Any]:
    """Puts named arrays of shards on their devices, sharded along `AXES` or else the first axis.

    `get_arrays` is called for the shards of this process only. `None` stays `None`.
    """
    pieces: dict[str, list[jax.Array]] = {}
    for number, devices in own_devices(mesh, axis_name).items():
        for name, array in get_arrays(number).items():
            own = pieces.setdefault(name, [])
            if array is not None:
                own += [jax.device_put(np.atleast_1d(array), device) for device in devices]

    def join(name: str) -> jax.Array | None:
        if not pieces[name]:
            return None
        axis, shape = AXES.get(name, 0), list(pieces[name][0].shape)
        shape[axis] *= mesh.shape[axis_name]
        sharding = NamedSharding(mesh, _make_spec(axis, axis_name))
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, pieces[name])

    return {name: join(name) for name in pieces}


def put_shards(index: ShardedIndex, make_arrays: Callable[[HashIndex], dict[str, Any]]) -> dict[str, Any]:
    """Computes arrays, of equal shapes, from each shard and puts them on its devices, sharded along axis 0.

    All processes that hold shards must make this call.
    """
    shards = _find_local_shards(index, copies=True)
    return _put_arrays(lambda number: make_arrays(shards[number]), index.mesh, index.axis_name)


def own_devices(mesh: Mesh, axis_name: str) -> dict[int, list[jax.Device]]:
    """Returns the devices of this process by the number of their shard."""
    own = {
        number: [device for device in devices if device.process_index == jax.process_index()]
        for number, devices in find_devices(mesh, axis_name).items()
    }
    return {number: devices for number, devices in own.items() if devices}


def find_devices(mesh: Mesh, axis_name: str) -> dict[int, list[jax.Device]]:
    """Returns the devices of all processes by the number of their shard."""
    num_shards = mesh.shape[axis_name]
    by_shard: dict[int, list[jax.Device]] = {}
    slices = NamedSharding(mesh, PartitionSpec(axis_name)).devices_indices_map((num_shards,))
    for device, index in slices.items():
        number, _, _ = index[0].indices(num_shards) if index else (0, 0, 0)
        by_shard.setdefault(number, []).append(device)
    return dict(sorted(by_shard.items()))


def _make_spec(axis: int, axis_name: str) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, axis_name)


def map_shards(index: ShardedIndex, function: Callable[..., Any], *rows: Any, beside: Any = ()) -> Any:
    """Applies `function(shard, *beside, *rows)` on every device, and gathers the results on all devices.

    Call it under tracing. It compiles to a single collective: one `all_gather` of the results.

    Args:
        index: a `ShardedIndex`.
        function: returns a pytree of int32 and bool arrays.
        rows: pytrees of arrays, such as queries, replicated to every device.
        beside: pytrees of arrays from `put_shards`; every device gets its own part.

    Returns:
        The pytree, with the shards as the first axis of each array.
    """

    def gather(*arguments: Any) -> Any:
        results = function(*arguments)
        flat, unravel = ravel_pytree(jax.tree.map(lambda array: array.astype(np.int32), results))
        gathered = jax.vmap(unravel)(lax.all_gather(flat, index.axis_name))
        return jax.tree.map(lambda array, own: array.astype(own.dtype), gathered, results)

    return _on_shards(index, gather, PartitionSpec(), beside, rows)


def map_sharded(function: Callable[..., Any], index: ShardedIndex, *rows: Any) -> Any:
    """Applies `function(shard, *rows)` on every device; results stay there, sharded along their first axis."""
    spec = PartitionSpec(index.axis_name)
    return _on_shards(index, function, spec, (), rows)


def _on_shards(index: ShardedIndex, function: Callable[..., Any], out_specs: Any, beside: Any, rows: Any) -> Any:
    """Applies `function(shard, *beside, *rows)` on every device, with all rows and its part of `beside`."""

    def on_device(arrays: tuple[jax.Array, ...], beside: Any, *rows: Any) -> Any:
        return function(_make_shard(arrays, index), *beside, *rows)

    specs = tuple(_make_spec(axis, index.axis_name) for axis in AXES.values())
    mapped = jax.shard_map(
        on_device,
        mesh=index.mesh,
        in_specs=(specs, PartitionSpec(index.axis_name), *(PartitionSpec() for _ in rows)),
        out_specs=out_specs,
        check_vma=False,  # it can't tell that gathered arrays are equal on all devices
    )
    return mapped(tuple(getattr(index, name) for name in AXES), beside, *rows)


def _make_shard(arrays: Sequence[Any], index: ShardedIndex) -> HashIndex:
    codes, offsets, ids, num_codes, num_items = arrays
    return HashIndex(codes, offsets, ids, num_codes[0], num_items[0], index.num_bits, index.multi)


def local_shards(index: ShardedIndex) -> dict[int, HashIndex]:
    """Returns the shards on the devices of this process by number, without copies; each belongs to one process.

    They are cached, since address tables live as long as their index object.
    """
    return cache_of(index).keep("shards", partial(_find_local_shards, index, copies=False))


def _find_local_shards(index: ShardedIndex, copies: bool) -> dict[int, HashIndex]:
    """Returns the shards on the devices of this process; with `copies`, also replicas of other processes' shards."""
    arrays_of: dict[int, list[Any]] = {}
    for position, (name, axis) in enumerate(AXES.items()):
        array = getattr(index, name)
        for piece in array.addressable_shards:
            start, _, _ = piece.index[axis].indices(array.shape[axis])
            number = start * index.num_shards // array.shape[axis]
            if (copies or piece.replica_id == 0) and len(arrays_of.get(number, [])) == position:
                # Sizes are fetched once, since each search on the host needs them.
                data = np.asarray(piece.data) if name.startswith("num_") else piece.data
                arrays_of.setdefault(number, []).append(data)
    return {number: _make_shard(arrays, index) for number, arrays in sorted(arrays_of.items())}
