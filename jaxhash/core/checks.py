"""Argument checks.

Wrong values raise `ValueError`, wrong types `TypeError`. Each message names the argument, the expectation and the given
value. Other dtypes are not cast: such values may already have lost precision.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import UnionType
from typing import Any, TypeGuard, TypeVar, get_args

import jax
import numpy as np
from jax.typing import ArrayLike

MAX_NUM_BITS = 2**15
INT32_MAX = int(np.iinfo(np.int32).max)
_UINT32 = np.dtype(np.uint32)
_Tracer = jax.core.Tracer

# For functions that return numpy arrays for numpy arrays, and JAX arrays for JAX arrays, concrete or traced.
AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


def is_jax(*arrays: Any) -> bool:
    """Returns whether any argument is a JAX array, concrete or traced; results are then JAX arrays too."""
    for array in arrays:  # noqa: SIM110 (a generator takes three times as long, in every search)
        if not isinstance(array, np.ndarray) and isinstance(array, jax.Array):
            return True
    return False


def as_array(value: Any) -> Any:
    """Converts anything but JAX arrays to a numpy array."""
    return value if isinstance(value, jax.Array) else np.asarray(value)


def is_traced(*trees: Any) -> bool:
    """Returns whether any array in `trees` is traced (by `jit`, `vmap`, `grad`), so that its values are unknown."""
    for tree in trees:
        if isinstance(tree, _Tracer):
            return True
        # Listing the leaves of a tree takes as long as all other checks of a search.
        is_array = tree is None or isinstance(tree, (np.ndarray, jax.Array))
        if not is_array and any(isinstance(leaf, _Tracer) for leaf in jax.tree.leaves(tree)):
            return True
    return False


def is_on_host(array: Any) -> bool:
    """Returns whether numpy can read the array without a transfer: false for JAX arrays on accelerators."""
    return not isinstance(array, jax.Array) or next(iter(array.devices())).platform == "cpu"


def any_known(find: Callable[..., Any], array: Any, *numbers: int) -> bool:
    """Returns whether `find(array, *numbers)` marks any value; false for traced arrays.

    For an array on an accelerator, `find` runs there, and only the result is fetched.
    """
    if isinstance(array, _Tracer):
        return False
    if is_on_host(array):
        return bool(find(np.asarray(array), *numbers).any())
    with jax.ensure_compile_time_eval():  # else a caller's jit would stage it, although the array is concrete
        return bool(_any_marked(find, numbers, array))


@partial(jax.jit, static_argnums=(0, 1))
def _any_marked(find: Callable[..., Any], numbers: tuple[int, ...], array: jax.Array) -> jax.Array:
    return find(array, *numbers).any()


def is_stream(value: Any) -> TypeGuard[Iterable[Any]]:
    """Returns whether the value is an iterable of batches (a generator, a data loader) and not array-like."""
    if hasattr(value, "toarray"):  # a sparse matrix is an iterable of its rows
        return False
    return isinstance(value, Iterable) and not isinstance(value, Sequence) and not hasattr(value, "__array__")


def check_integer(name: str, value: Any, minimum: int, maximum: int = INT32_MAX) -> int:
    """Returns `value` as an int between `minimum` and `maximum`, both inclusive."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{name} must lie between {minimum} and {maximum}, got {number}")
    return number


def check_radius(radius: Any, num_bits: int) -> int:
    """Returns a radius as an int, capped at the number of bits, which matches all items."""
    return min(check_integer("radius", radius, 0, maximum=2**63 - 1), num_bits)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_slots(num_queries: int, slots: int) -> None:
    """Raises if results exceed int32 indexing, before they are allocated."""
    if num_queries * slots > INT32_MAX:
        raise ValueError(
            f"{num_queries} queries with {slots} results each exceed 2^31 results: ask for fewer, or split the queries"
        )


def check_kind(name: str, value: Any, kind: type | UnionType, see: str) -> None:
    """Raises unless the value is an instance of a class or union; `see` names a function that returns one."""
    if not isinstance(value, kind):
        expected = " or a ".join(part.__name__ for part in (get_args(kind) or (kind,)))
        raise TypeError(f"{name} must be a {expected}, got {type(value).__name__}; see {see}")


def check_num_bits(num_bits: Any, maximum: int = MAX_NUM_BITS) -> int:
    """Returns the number of bits of a code as an int."""
    return check_integer("num_bits", num_bits, 1, maximum)


def num_words(num_bits: int) -> int:
    """Returns the number of 32-bit words for `num_bits` bits."""
    return -(-num_bits // 32)


def padding_mask(num_bits: int, word_size: int = 32) -> int:
    """Returns a mask of the unused low bits of a code's last word."""
    return (1 << (-num_bits % word_size)) - 1


def find_padding(codes: Any, num_bits: int) -> Any:
    """Returns the set padding bits of codes uint32 `[..., w]` or uint8 `[..., m]`: last word or byte, `[...]`."""
    return codes[..., -1] & codes.dtype.type(padding_mask(num_bits, 8 * codes.dtype.itemsize))


def dtype_of(array: ArrayLike) -> np.dtype[Any]:
    """Returns the dtype of an array, traced or not, or of the numpy conversion of any other value."""
    return np.dtype(array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype)


# Where codes of other dtypes come from, and how they become ours.
_CURE = "see jaxhash.pack_bits"
SIGNED_BYTES = 'of precision "binary" of sentence-transformers, give x.view(np.uint8) ^ 0x80'
_CURES = {
    "uint8": "convert bytes by jaxhash.codes_from_bytes(x, num_bits)",
    "int8": f"convert bytes by jaxhash.codes_from_bytes(x, num_bits); {SIGNED_BYTES}",
    "uint64": "convert integers by jaxhash.codes.codes_from_integers(x, num_bits)",
}


def check_code_array(name: str, codes: ArrayLike, width: int | None = None) -> None:
    """Checks dtype uint32 (any byte order) and shape `[..., width]`, also of traced arrays."""
    dtype, shape = dtype_of(codes), np.shape(codes)
    if dtype.kind != "u" or dtype.itemsize != 4:
        raise TypeError(f"{name} must be packed codes of dtype uint32, got {dtype}; {_CURES.get(dtype.name, _CURE)}")
    if not shape:
        raise ValueError(f"{name} must have shape [..., words], got a scalar")
    if width is not None and shape[-1] != width:
        raise ValueError(f"{name} must have {width} words in the last axis, got shape {shape}")


def check_codes(name: str, codes: ArrayLike, num_bits: int) -> np.ndarray:
    """Returns concrete `codes` as a native uint32 array `[..., w]`, with checked width and padding bits."""
    array: Any = codes
    # Usual queries skip this; it takes as long as a search of a few thousand codes.
    if type(codes) is not np.ndarray or codes.dtype is not _UINT32 or codes.shape[-1:] != (num_words(num_bits),):
        check_code_array(name, codes, num_words(num_bits))
        array = np.asarray(codes).astype(np.uint32, copy=False)
    if padding_mask(num_bits) and find_padding(array, num_bits).any():
        position = tuple(int(i) for i in np.argwhere(find_padding(array, num_bits))[0])
        raise ValueError(f"{name}: padding bits must be zero, but the code at {position} has bits past {num_bits}")
    return array


def check_known_codes(name: str, codes: ArrayLike, num_bits: int) -> Any:
    """Returns checked codes: JAX arrays unchanged, all else as a native numpy array.

    Traced codes are checked for dtype and width only. Codes on an accelerator are checked there, and only the result is
    fetched.
    """
    if not isinstance(codes, jax.Array):
        return check_codes(name, codes, num_bits)
    check_code_array(name, codes, num_words(num_bits))
    if padding_mask(num_bits) and any_known(find_padding, codes, num_bits):
        check_codes(name, codes, num_bits)  # raises with the position of the code
    return codes


def check_ids(ids: ArrayLike | None, num_items: int, *, distinct: bool = True) -> np.ndarray:
    """Returns ids as int32 `[num_items]`; `None` stands for 0, 1, 2, ...

    They must lie in [0, 2^31), and be distinct unless `distinct=False`.
    """
    if ids is None:
        return np.arange(num_items, dtype=np.int32)
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    if array.shape != (num_items,):
        raise ValueError(f"ids must have shape ({num_items},), one for each code, got {array.shape}")
    if array.size and (array.min() < 0 or array.max() > INT32_MAX):
        wrong = array[(array < 0) | (array > INT32_MAX)][0]
        raise ValueError(
            f"ids must lie between 0 and {INT32_MAX}, got {wrong}; for other ids, keep an array my_ids and "
            "look up my_ids[ids]"
        )
    if distinct:
        _check_distinct(array)
    return array.astype(np.int32, copy=False)


def _check_distinct(ids: np.ndarray) -> None:
    ordered = np.sort(ids)
    repeated = ordered[1:] == ordered[:-1]
    if repeated.any():
        raise ValueError(
            f"ids must be distinct, but {ordered[1:][repeated][0]} occurs more than once "
            "(multi=True allows several codes per item)"
        )


def check_embedded(
    name: str, vectors: Any, count: int, width: int | None = None, labels: Sequence[str] | None = None
) -> np.ndarray:
    """Returns checked vectors from a user's function, float32 `[count, d]`; errors name images by `labels`."""
    try:
        array = np.asarray(vectors)
    except Exception as error:
        raise ValueError(
            f"{name} must return an array [n, d] that numpy can read, got {type(vectors).__name__} "
            f"({type(error).__name__}: {error})"
        ) from error
    expected = (count, array.shape[-1] if array.ndim == 2 and width is None else width)
    if not jax.numpy.issubdtype(array.dtype, np.floating) or array.shape != expected or 0 in array.shape:
        shape = f"[{count}, {'d' if width is None else width}]"
        raise ValueError(f"{name} must return floats of shape {shape}, got {array.dtype} of shape {array.shape}")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, copy=False)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        image = f"image {row} of its batch" if labels is None else labels[row]
        raise ValueError(f"{name} returned NaN or a number too large for float32 for {image}")
    return values
