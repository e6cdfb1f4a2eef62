"""Calls of compiled programs from Python, and batching of any number of rows through few programs."""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.extend.core
import numpy as np

from jaxhash.core.checks import is_jax, is_on_host

# Its module differs between the oldest and the newest supported jax.
_trace_state = getattr(jax.extend.core, "get_opaque_trace_state", None) or jax.core.get_opaque_trace_state
_NO_TRACE = _trace_state()


def entry_point(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """Compiles `function(tree, *rows, **options)` for calls from Python.

    On CPU, vectors of full width make the scan up to three times faster. The compiler option is allowed only on the
    outermost `jit`, and other backends reject it. So it is set here, and not in functions that callers trace.

    Args:
        function: takes a pytree of arrays, pytrees of rows, and keyword options. It runs on the device of the first
            array, or of the rows if that is a numpy array.
        static: the names of the static options.
    """
    plain = jax.jit(function, static_argnames=static)
    wide = jax.jit(function, static_argnames=static, compiler_options={"xla_cpu_prefer_vector_width": 512})

    def call(tree: Any, *rows: Any, **options: Any) -> Any:
        leaf = jax.tree.leaves(tree)[0]
        if not isinstance(leaf, jax.Array):
            leaf = next((row for row in jax.tree.leaves(rows) if isinstance(row, jax.Array)), leaf)
        devices = leaf.devices() if isinstance(leaf, jax.Array) else set(jax.devices()[:1])
        compiled = wide if next(iter(devices)).platform == "cpu" else plain
        if not all(type(row) is np.ndarray for row in rows):
            rows = jax.tree.map(lambda row: _move_to_host(row, devices), rows)
        with _untraced():
            return compiled(tree, *rows, **options)

    return call


def _untraced() -> AbstractContextManager[None]:
    """Evaluates operations on concrete arrays eagerly; under a caller's `jit` they would be staged."""
    return nullcontext() if _trace_state() == _NO_TRACE else jax.ensure_compile_time_eval()


def put_beside(tree: Any, *arrays: Any) -> Any:
    """Converts numpy arrays to JAX arrays, on the single device that the first committed one of `arrays` is on."""
    committed = [array.devices() for array in arrays if isinstance(array, jax.Array) and array.committed]
    with _untraced():
        return jax.device_put(tree, next(iter(committed[0])) if committed and len(committed[0]) == 1 else None)


def _move_to_host(row: Any, devices: set[jax.Device]) -> Any:
    """Moves a row array to the host unless it is on these devices; `jit` transfers it from there."""
    return np.asarray(row) if isinstance(row, jax.Array) and row.devices() != devices else row


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="jaxhash")


def in_parallel(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Applies a function to chunks of work in two threads and returns the results in order.

    Selecting and filling use one core, so one thread can scan while the other selects. The function must not call
    `in_parallel` itself, which would deadlock.
    """
    return [function(part) for part in parts] if len(parts) < 2 else list(_workers().map(function, parts))


_collective = threading.Lock()


def one_at_a_time(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
    """Applies a function to chunks of work in sequence, under a lock shared by all threads.

    For programs that run on several devices: two devices that start two such programs in different orders deadlock. The
    function must block until its results are ready.
    """
    with _collective:
        return [function(part) for part in parts]


def in_batches(
    compiled: Callable[[Any], Any],
    rows: Any,
    size: int,
    lead: tuple[int, ...] | None = None,
    mapped: Callable[..., list[Any]] = in_parallel,
    axes: int = 1,
) -> Any:
    """Applies a compiled function to rows, at most `size` at a time, and joins its results.

    The last batch is padded with zeros to a power of two, so few programs serve any number of rows.

    JAX arrays that fit one batch stay on their device, and so do the results. Other rows stay on the host except for
    the current batches, so they may exceed the device memory: each of two threads sends a batch, waits for its results
    and fetches them, while the device computes for the other thread. These rows are padded, cut and joined in numpy,
    since JAX would recompile for each length. Results are JAX arrays if any rows are, else numpy arrays.

    Args:
        compiled: maps a pytree of arrays `[m, ...]` to a pytree of arrays `[m, ...]`, row by row.
        rows: a pytree of arrays `[n, ...]`, or with several leading `axes` that multiply to n.
        size: the largest batch, a power of two.
        lead: the leading axes of the results, which multiply to n; by default `(n,)`.
        mapped: `in_parallel`, or `one_at_a_time` if the function runs on several devices.
        axes: the number of leading axes of the rows. If it is 0, the function must also take a single row.

    Returns:
        A pytree of arrays `[*lead, ...]`.
    """
    if axes != 1:
        if not axes and all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(rows)):
            return compiled(rows)
        with _untraced():
            rows = jax.tree.map(lambda array: array.reshape(math.prod(array.shape[:axes]), *array.shape[axes:]), rows)
    leaves = jax.tree.leaves(rows)
    count = len(leaves[0])
    lead = (count,) if lead is None else lead
    if count <= size and all(_stays_on_device(leaf, padded_length(count, size)) for leaf in leaves):
        with _untraced():
            results = compiled(_pad_on_device(rows, length=padded_length(count, size)))
            return _cut_on_device(results, count=count, lead=lead)
    host_rows = jax.tree.map(np.asarray, rows)

    def run(start: int) -> Any:
        batch = jax.tree.map(lambda array: pad_rows(array[start : start + size], size), host_rows)
        return jax.tree.map(np.asarray, compiled(batch))

    parts = mapped(run, range(0, max(1, count), size))
    joined = jax.tree.map(lambda *arrays: _join(arrays)[:count].reshape(lead + arrays[0].shape[1:]), *parts)
    return put_beside(joined, *leaves) if is_jax(*leaves) else joined


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def padded_length(count: int, size: int) -> int:
    """Returns the padded length of `count` rows: a power of two, at most `size`."""
    return min(size, 1 << max(0, count - 1).bit_length())


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Pads rows `[m, ...]` with zeros to a power of two, at most `size`."""
    length = padded_length(len(rows), size)
    if length == len(rows):
        return rows
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _stays_on_device(rows: Any, length: int) -> bool:
    """Returns whether rows stay on their device.

    On CPU, only rows without padding do: numpy shares their memory and pads without compiling.
    """
    return isinstance(rows, jax.Array) and (len(rows) == length or not is_on_host(rows))


@functools.partial(jax.jit, static_argnames="length")
def _pad(rows: Any, *, length: int) -> Any:
    return jax.tree.map(
        lambda array: jax.numpy.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1)), rows
    )


def _pad_on_device(rows: Any, *, length: int) -> Any:
    return rows if len(jax.tree.leaves(rows)[0]) == length else _pad(rows, length=length)


@functools.partial(jax.jit, static_argnames=("count", "lead"))
def _cut(results: Any, *, count: int, lead: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda array: array[:count].reshape(lead + array.shape[1:]), results)


def _cut_on_device(results: Any, *, count: int, lead: tuple[int, ...]) -> Any:
    return results if jax.tree.leaves(results)[0].shape[:1] == lead else _cut(results, count=count, lead=lead)


def map_batches(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """Applies a traced function to rows, a pytree of arrays `[n, ...]`, at most `size` at a time.

    `lax.map` with a `batch_size` takes a third longer.
    """
    count = len(jax.tree.leaves(rows)[0])
    if count <= size:
        return function(rows)
    num_batches = -(-count // size)

    def split(array: jax.Array) -> jax.Array:
        spare = [(0, num_batches * size - count)] + [(0, 0)] * (array.ndim - 1)
        return jax.numpy.pad(array, spare).reshape(num_batches, size, *array.shape[1:])

    results = jax.lax.map(function, jax.tree.map(split, rows))
    return jax.tree.map(lambda array: array.reshape(num_batches * size, *array.shape[2:])[:count], results)
