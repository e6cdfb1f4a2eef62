"""From images to neighbours: a model and an index as one pytree, searched by one compiled program, kept in one file."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import first_bits
from jaxhash.core.batching import entry_point, in_batches, in_parallel, one_at_a_time
from jaxhash.core.checks import check_code_array, check_codes, check_integer, check_slots, is_traced, num_words
from jaxhash.files.archive import AnyPath, Archive, Arrays, CorruptFileError, read_archive, write_archive
from jaxhash.index.contents import index_to_arrays, read_sorted
from jaxhash.index.hash_index import HashIndex, index_from_sorted, largest_id
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.encoding import encode_items
from jaxhash.models.file import model_from_archive, model_to_arrays
from jaxhash.models.inputs import ITEMS_AT_ONCE, check_items, narrow_floats
from jaxhash.query.filters import Allowed, apply_filter, check_allowed
from jaxhash.query.nearest import nearest_items
from jaxhash.query.reranking import nearest_candidates
from jaxhash.query.results import Neighbors

IndexT = TypeVar("IndexT", bound=AnyIndex)

# How many items short codes shortlist for long ones by default.
NUM_CANDIDATES = 500


@partial(jax.tree_util.register_dataclass, data_fields=["model", "index", "long_codes"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Retriever(Generic[IndexT]):
    """A model and an index of its codes; a pytree of both.

    model: an autoencoder of b-bit codes.
    index: an index of the codes of all items, or of their first bits if there are long codes.
    long_codes: uint32 `[n, w]`, the whole b-bit code of the item with id i in row i, by which the items that the index
        finds are ranked again; or `None`.
    """

    model: Autoencoder
    index: IndexT
    long_codes: jax.Array | None = None


def retrieve(
    retriever: Retriever[Any],
    images: ArrayLike,
    *,
    k: int,
    num_candidates: int | None = None,
    allowed: ArrayLike | None = None,
) -> Neighbors:
    """Finds the k indexed items whose codes are nearest to those of images, in one compiled program.

    Args:
        retriever: a model and an index of its codes.
        images: `[..., *input_shape]`, as for `encode`.
        k: how many items to find, at least 1 (static).
        num_candidates: how many items a retriever with long codes shortlists by short ones (static), at least k; by
            default 500, or k if that is more.
        allowed: which items may be found, bool `[m]`, as for `search`.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id): what
        `search(index, encode(model, images), k=k)` gives; with long codes, what `rerank` gives for the nearest items
        by the codes' first bits.

    Raises:
        ValueError: images don't fit the model, a number is out of range, model and index differ in their number of
            bits, or long codes don't match the model and the index.
        TypeError: an argument is of the wrong kind.
    """
    check_retriever(retriever)
    k = check_integer("k", k, 1)
    items, lead, _ = check_items(retriever.model, images)
    slots = _count_slots(retriever, k, num_candidates)
    check_slots(len(items), slots)
    allowed = check_allowed(retriever.index, allowed)
    if is_traced(retriever, images, allowed):
        found = _retrieve(retriever, items, allowed, k=k, slots=slots)
        return Neighbors(*(array.reshape(*lead, k) for array in found))
    index, allowed = apply_filter(retriever.index, allowed)
    retriever = replace(retriever, index=index)
    mapped = one_at_a_time if isinstance(retriever.index, ShardedIndex) else in_parallel

    def answer(batch: Any) -> Neighbors:
        return _compiled_retrieve(retriever, narrow_floats(batch), allowed=allowed, k=k, slots=slots)

    # Batches suit the encoder; within the program, fewer queries at a time are compared with the codes.
    return in_batches(answer, items, ITEMS_AT_ONCE, lead, mapped)


def _count_slots(retriever: Retriever[Any], k: int, num_candidates: int | None) -> int:
    """How many items to find in the index."""
    if retriever.long_codes is None:
        if num_candidates is not None:
            raise ValueError("num_candidates is for a retriever with long codes, and this one has none")
        return k
    return max(k, NUM_CANDIDATES) if num_candidates is None else check_integer("num_candidates", num_candidates, k)


def check_retriever(retriever: Retriever[Any]) -> None:
    """Raises unless the retriever's model makes codes of the index's length."""
    if not isinstance(retriever, Retriever):
        raise TypeError(f"retriever must be a Retriever, got {type(retriever).__name__}")
    model_bits, index_bits = retriever.model.num_bits, retriever.index.num_bits
    if retriever.long_codes is not None:
        _check_long_codes(retriever.long_codes, retriever.index, model_bits)
    elif model_bits != index_bits:
        raise ValueError(f"the model makes codes of {model_bits} bits, but the index holds codes of {index_bits} bits")


def _check_long_codes(long_codes: jax.Array, index: AnyIndex, model_bits: int) -> None:
    if not isinstance(index, HashIndex):
        raise TypeError(f"long codes go with a HashIndex, got {type(index).__name__}")
    if index.num_bits > model_bits:
        raise ValueError(f"the model makes codes of {model_bits} bits, but the index holds codes of {index.num_bits}")
    check_code_array("long_codes", long_codes, num_words(model_bits))
    if long_codes.ndim != 2:
        raise ValueError(f"long_codes must have shape [n, {num_words(model_bits)}], got {long_codes.shape}")
    if not is_traced(index) and largest_id(index) >= len(long_codes):
        raise ValueError(f"long_codes has {len(long_codes)} rows, but the index holds the id {largest_id(index)}")


def _retrieve(retriever: Retriever[Any], items: Any, allowed: Allowed = None, *, k: int, slots: int) -> Neighbors:
    codes = encode_items(retriever.model, items)
    if retriever.long_codes is None:
        return nearest_items(retriever.index, codes, allowed=allowed, k=slots)
    shortlist = nearest_items(
        retriever.index, first_bits(codes, retriever.index.num_bits), allowed=allowed, k=slots
    ).ids
    return nearest_candidates(retriever.long_codes, codes, shortlist, k=k)


_compiled_retrieve = entry_point(_retrieve, "k", "slots")


def save_retriever(path: AnyPath, retriever: Retriever[HashIndex]) -> None:
    """Saves model and index in one file; raises what `save_model` raises, and `TypeError` for a `ShardedIndex`."""
    write_archive(path, Archive("retriever", *retriever_to_arrays(retriever)))


def load_retriever(path: AnyPath) -> Retriever[HashIndex]:
    """Loads a model and its index; raises what `load_index` raises."""
    return retriever_from_archive(path, read_archive(path, "retriever"))


def retriever_to_arrays(retriever: Retriever[HashIndex]) -> tuple[dict[str, Any], Arrays]:
    """What of a retriever goes into a file: plain data, and arrays by name."""
    check_retriever(retriever)
    if isinstance(retriever.index, ShardedIndex):
        raise TypeError(
            "retriever must have a HashIndex to go into one file, got a ShardedIndex: save its parts by save_model and "
            "save_index, and make a Retriever of what load_model and load_sharded_index give"
        )
    index_meta, index_arrays = index_to_arrays(retriever.index)
    model_meta, model_arrays = model_to_arrays(retriever.model)
    long_codes = {} if retriever.long_codes is None else {"long_codes": np.asarray(retriever.long_codes)}
    return index_meta | model_meta, index_arrays | model_arrays | long_codes


def retriever_from_archive(path: AnyPath, archive: Archive) -> Retriever[HashIndex]:
    """The reverse; raises `CorruptFileError` unless they are what a retriever can be made of."""
    model, index = model_from_archive(path, archive), index_from_sorted(*read_sorted(path, archive))
    long_codes = archive.arrays.get("long_codes")
    retriever = Retriever(model, index, None if long_codes is None else jax.device_put(long_codes))
    try:
        check_retriever(retriever)
        if long_codes is not None:
            check_codes("long_codes", long_codes, model.num_bits)
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: {error}") from None
    return retriever
