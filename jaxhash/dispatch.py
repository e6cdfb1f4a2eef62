"""How a call from Python reaches a compiled program: what is compiled, and any number of rows through a few programs."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def entry_point(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """Compiles `function(tree, rows, **options)` for calls from Python.

    On CPU, vectors of full width make the scan up to three times faster. That option is allowed on the outermost `jit`
    alone and other back ends reject it, so it stands here, and functions that callers trace stay bare.

    Args:
        function: takes a pytree of arrays that live on a device, an array of rows, and options by name.
        static: the names of the options that are static.
    """
    plain = jax.jit(function, static_argnames=static)
    wide = jax.jit(function, static_argnames=static, compiler_options={"xla_cpu_prefer_vector_width": 512})

    def call(tree: Any, rows: Any, **options: Any) -> Any:
        leaf = jax.tree.leaves(tree)[0]
        devices = leaf.devices() if isinstance(leaf, jax.Array) else jax.devices()
        on_cpu = next(iter(devices)).platform == "cpu"
        # A caller's jit would otherwise stage this call although all its inputs are known.
        with jax.ensure_compile_time_eval():
            return (wide if on_cpu else plain)(tree, rows, **options)

    return call


def in_batches(
    compiled: Callable[[np.ndarray], Any], rows: np.ndarray, size: int, lead: tuple[int, ...] | None = None
) -> Any:
    """Applies a compiled function to rows, at most `size` at a time, and joins its results.

    The last batch is padded with zeros to a power of two, so that every number of rows is served by the same few
    programs. Padding, cutting and joining are numpy's: in JAX they would be compiled anew for each length.

    Args:
        compiled: maps rows `[m, ...]` to a pytree of arrays `[m, ...]`, row by row.
        rows: `[n, ...]`.
        size: the largest batch, a power of two.
        lead: axes whose product is n, to give the results; by default `(n,)`.

    Returns:
        The pytree, of JAX arrays `[*lead, ...]`.
    """
    parts = []
    for start in range(0, max(1, len(rows)), size):
        batch = rows[start : start + size]
        result = compiled(padded_rows(batch, size))
        parts.append(jax.tree.map(lambda array, count=len(batch): np.asarray(array)[:count], result))
    lead = (len(rows),) if lead is None else lead
    return jax.tree.map(
        lambda *arrays: jax.device_put(np.concatenate(arrays).reshape(lead + arrays[0].shape[1:])), *parts
    )


def padded_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Pads rows `[m, ...]` with zeros to a power of two, at most `size`."""
    length = min(size, 1 << max(0, len(rows) - 1).bit_length())
    if length == len(rows):
        return rows
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))
