"""How calls from Python reach compiled programs, and any number of rows pass through a few of them."""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.extend.core
import numpy as np

# Moved between the oldest and the newest supported jax.
_trace_state = getattr(jax.extend.core, "get_opaque_trace_state", None) or jax.core.get_opaque_trace_state
_NO_TRACE = _trace_state()


def entry_point(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """Compiles `function(tree, *rows, **options)` for calls from Python.

    On CPU, vectors of full width make the scan up to three times faster. That option is allowed on the outermost `jit`
    alone and other back ends reject it, so it stands here, and functions that callers trace stay bare.

    Args:
        function: takes a pytree of arrays that mostly live on a device, arrays of rows, and options by name.
        static: the names of the options that are static.
    """
    plain = jax.jit(function, static_argnames=static)
    wide = jax.jit(function, static_argnames=static, compiler_options={"xla_cpu_prefer_vector_width": 512})

    def call(tree: Any, *rows: Any, **options: Any) -> Any:
        leaf = jax.tree.leaves(tree)[0]
        devices = leaf.devices() if isinstance(leaf, jax.Array) else jax.devices()
        on_cpu = next(iter(devices)).platform == "cpu"
        compiled = wide if on_cpu else plain
        if _trace_state() == _NO_TRACE:
            return compiled(tree, *rows, **options)
        # Somebody's jit is being traced around this call and would stage it, although all its inputs are known.
        with jax.ensure_compile_time_eval():
            return compiled(tree, *rows, **options)

    return call


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="jaxhash")


def in_parallel(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Applies a function to parts of the work, two at a time, and gives its results in order.

    Selecting and filling run on one core, so that while one part is there, the other can scan. The function must not
    call this one, or threads would wait for themselves.
    """
    return [function(part) for part in parts] if len(parts) < 2 else list(_workers().map(function, parts))


_collective = threading.Lock()


def one_at_a_time(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Applies a function to parts of the work, one after the other, while no other thread does so.

    For programs that run on several devices. Devices that took up two of them in different orders would each wait for
    the others in another one, for ever. The function must wait for its results.
    """
    with _collective:
        return [function(part) for part in parts]


def in_batches(
    compiled: Callable[[np.ndarray], Any],
    rows: np.ndarray,
    size: int,
    lead: tuple[int, ...] | None = None,
    mapped: Callable[..., list[Any]] = in_parallel,
) -> Any:
    """Applies a compiled function to rows, at most `size` at a time, and joins its results.

    The last batch is padded with zeros to a power of two, so that every number of rows is served by the same few
    programs. Padding, cutting and joining are numpy's: in JAX they would be compiled anew for each length.

    Rows stay on the host but for the batches in work, so that there may be more than the device has room for; results
    go back to it all together in the end. Two threads each send a batch, wait for what comes of it and fetch that:
    while one does so, the device can compute for the other. On several devices at once, batches take turns, and nothing
    is hidden.

    Args:
        compiled: maps rows `[m, ...]` to a pytree of arrays `[m, ...]`, row by row.
        rows: `[n, ...]`.
        size: the largest batch, a power of two.
        lead: axes whose product is n, to give the results; by default `(n,)`.
        mapped: `in_parallel`, or `one_at_a_time` where the function runs on several devices.

    Returns:
        The pytree, of JAX arrays `[*lead, ...]`.
    """
    batches = [rows[start : start + size] for start in range(0, max(1, len(rows)), size)]

    def run(batch: np.ndarray) -> Any:
        return jax.tree.map(np.asarray, compiled(pad_rows(batch, size)))

    parts = mapped(run, batches)
    count, lead = len(rows), (len(rows),) if lead is None else lead
    return jax.tree.map(
        lambda *arrays: jax.device_put(np.concatenate(arrays)[:count].reshape(lead + arrays[0].shape[1:])), *parts
    )


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Pads rows `[m, ...]` with zeros to a power of two, at most `size`."""
    length = min(size, 1 << max(0, len(rows) - 1).bit_length())
    if length == len(rows):
        return rows
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))
