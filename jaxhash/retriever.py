"""From pixels to neighbours: a model and an index as one pytree, searched by one compiled program."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import jax
from jax.typing import ArrayLike

from jaxhash.autoencoder import Autoencoder, check_items, encode_items
from jaxhash.checks import check_integer, is_traced
from jaxhash.dispatch import entry_point, in_batches, in_parallel, one_at_a_time
from jaxhash.scan import AnyIndex, Neighbors, nearest_items, queries_at_once
from jaxhash.search import check_places
from jaxhash.sharding import ShardedIndex

IndexT = TypeVar("IndexT", bound=AnyIndex)


@partial(jax.tree_util.register_dataclass, data_fields=["model", "index"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Retriever(Generic[IndexT]):
    """A model and an index of codes that it made; a pytree of both."""

    model: Autoencoder
    index: IndexT


def retrieve(retriever: Retriever[Any], images: ArrayLike, *, k: int) -> Neighbors:
    """Finds the k indexed items whose codes are nearest to those of images, in one compiled program.

    Args:
        retriever: a model and an index of its codes.
        images: `[..., *input_shape]`, as for `encode`.
        k: how many items to find, at least 1 (static).

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id): what
        `search(index, encode(model, images), k=k)` gives.

    Raises:
        ValueError: images don't fit the model, k is out of range, or model and index differ in their number of bits.
        TypeError: an argument is of the wrong kind.
    """
    check_retriever(retriever)
    k = check_integer("k", k, 1)
    items, lead, _ = check_items(retriever.model, images)
    check_places(len(items), k)
    if is_traced(retriever, images):
        return Neighbors(*(array.reshape(*lead, k) for array in _retrieve(retriever, items, k=k)))
    size = queries_at_once(retriever.index, k)
    mapped = one_at_a_time if isinstance(retriever.index, ShardedIndex) else in_parallel
    return in_batches(lambda batch: _compiled_retrieve(retriever, batch, k=k), items, size, lead, mapped)


def check_retriever(retriever: Retriever[Any]) -> None:
    """Raises unless the retriever's model makes codes of the index's length."""
    if not isinstance(retriever, Retriever):
        raise TypeError(f"retriever must be a Retriever, got {type(retriever).__name__}")
    model_bits, index_bits = retriever.model.num_bits, retriever.index.num_bits
    if model_bits != index_bits:
        raise ValueError(f"the model makes codes of {model_bits} bits, but the index holds codes of {index_bits} bits")


def _retrieve(retriever: Retriever[Any], items: Any, *, k: int) -> Neighbors:
    return nearest_items(retriever.index, encode_items(retriever.model, items), k=k)


_compiled_retrieve = entry_point(_retrieve, "k")
