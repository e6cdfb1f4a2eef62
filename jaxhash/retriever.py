"""Retrievers: a model and an index in one pytree and one file, searched by one compiled program."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.codes.bits import first_bits
from jaxhash.codes.distances import Queries
from jaxhash.codes.weights import ALL_PLANES, pack_planes
from jaxhash.core.batching import entry_point, in_batches, in_parallel, one_at_a_time
from jaxhash.core.checks import (
    check_choice,
    check_code_array,
    check_codes,
    check_integer,
    check_slots,
    is_traced,
    num_words,
)
from jaxhash.files.archive import Archive, Arrays, read_archive, write_archive
from jaxhash.files.header import AnyPath, CorruptFileError
from jaxhash.index.contents import index_to_arrays, read_sorted
from jaxhash.index.hash_index import HashIndex, index_from_sorted
from jaxhash.index.positions import id_span
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.models.embedded import Embedded, embed_images
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode_items, encode_items_weighted, in_full_batches
from jaxhash.models.file import model_from_archive, model_to_arrays
from jaxhash.models.inputs import ITEMS_PER_CHUNK, check_items, narrow_floats, to_floats
from jaxhash.query.filters import apply_filter, check_allowed
from jaxhash.query.nearest import nearest_items
from jaxhash.query.rerank import METRICS, check_vectors, nearest_by_vectors, nearest_candidates
from jaxhash.query.results import Neighbors, ScoredNeighbors

__all__ = ["Retriever", "load_retriever", "retrieve", "save_retriever"]

IndexT = TypeVar("IndexT", bound=AnyIndex)

# Candidates for reranking by default.
NUM_CANDIDATES = 500


@partial(jax.tree_util.register_dataclass, data_fields=["model", "index", "long_codes", "vectors"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Retriever(Generic[IndexT]):
    """A pytree of a model and an index of its codes.

    model: a model of b-bit codes, or an `Embedded` with your own feature extractor for images.
    index: an index of the codes of all items, or of their first bits if there are long codes.
    long_codes: uint32 `[n, w]`, the whole b-bit code of the item with id i in row i, for reranking; or `None`.
    vectors: floating `[n, d]`, the input of the item with id i in row i, for reranking with a model of vectors `[d]`;
        or `None`. For memory-mapped vectors, see `rerank_vectors`.

    Long codes and vectors are JAX arrays, which avoids a transfer to the device in each call.
    """

    model: Any  # Encoder or Embedded
    index: IndexT
    long_codes: jax.Array | None = None
    vectors: jax.Array | None = None


def retrieve(
    retriever: Retriever[Any],
    images: ArrayLike,
    *,
    k: int,
    weighted: bool = False,
    num_candidates: int | None = None,
    metric: str | None = None,
    allowed: ArrayLike | None = None,
) -> Neighbors[Any] | ScoredNeighbors[Any]:
    """Finds the k indexed items nearest to images, in one compiled program.

    Args:
        retriever: a model and an index of its codes.
        images: `[..., *input_shape]`, as for `encode`.
        k: how many items to find, at least 1 (static).
        weighted: whether to compare codes by weighted distance, with the weights of `encode_weighted` (static).
        num_candidates: how many items of the index to rerank by long codes or vectors (static), at least k; by default
            500, or k if larger.
        metric: the metric for vectors, "cosine" (the default), "inner_product" or "euclidean" (static; see
            `rerank_vectors`).
        allowed: mask of the items to search, bool `[m]`, as for `search`.

    Returns:
        `Neighbors(distances, ids)`, both int32 `[..., k]`, sorted by (distance, code, id), equal to
        `search(index, encode(model, images), k=k)`, or to `search` with codes and weights of `encode_weighted`. With
        long codes, the candidates nearest by the codes' first bits are reranked by whole codes, as by `rerank`, with
        the same weights if `weighted`. With vectors, `ScoredNeighbors(scores, ids)`: the candidates nearest by codes
        are reranked as by `rerank_vectors`. Numpy arrays for numpy images, else JAX arrays.

    Raises:
        ValueError: images don't fit the model, a number is out of range, model and index differ in their number of
            bits, or long codes or vectors don't match the model and the index.
        TypeError: an argument has the wrong type.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (5, 2, 2), dtype=np.uint8)
        >>> model = jh.Autoencoder(input_dim=4, num_bits=64, hidden_dims=(32,))
        >>> retriever = jh.Retriever(model, jh.build_index(jh.encode(model, images), num_bits=64))
        >>> jh.retrieve(retriever, images, k=1).ids.T
        array([[0, 1, 2, 3, 4]], dtype=int32)
    """
    check_retriever(retriever)
    k = check_integer("k", k, 1)
    model, images = embed_images(retriever.model, images)
    retriever = replace(retriever, model=model)
    items, lead, _ = check_items(model, images)
    slots = _count_slots(retriever, k, num_candidates)
    check_slots(len(items), slots)
    metric = _choose_metric(retriever, metric)
    options: dict[str, Any] = {"k": k, "slots": slots, "weighted": bool(weighted), "metric": metric}
    mask = check_allowed(retriever.index, allowed)
    if is_traced(retriever, images, mask):
        neighbors = _retrieve(retriever, items, mask, **options)
        return jax.tree.map(lambda array: array.reshape(*lead, k), neighbors)
    index, mask_filter = apply_filter(retriever.index, mask)
    retriever = replace(retriever, index=index)
    mapped = one_at_a_time if isinstance(retriever.index, ShardedIndex) else in_parallel

    def answer(batch: Any) -> Neighbors[Any] | ScoredNeighbors[Any]:
        return _compiled_retrieve(retriever, narrow_floats(batch), allowed=mask_filter, full_batches=True, **options)

    # The batch size suits the encoder; the program compares fewer queries at a time with the codes.
    return in_batches(answer, items, ITEMS_PER_CHUNK, lead, mapped)


def _count_slots(retriever: Retriever[Any], k: int, num_candidates: int | None) -> int:
    """Returns the number of items to find in the index."""
    if retriever.long_codes is None and retriever.vectors is None:
        if num_candidates is not None:
            raise ValueError("num_candidates is for a retriever with long codes or vectors, got one with neither")
        return k
    return max(k, NUM_CANDIDATES) if num_candidates is None else check_integer("num_candidates", num_candidates, k)


def _choose_metric(retriever: Retriever[Any], metric: str | None) -> str | None:
    """Returns the metric for reranking by vectors, or `None` without vectors."""
    if retriever.vectors is None:
        if metric is not None:
            raise ValueError("metric is for a retriever with vectors, got one without")
        return None
    check_choice("metric", "cosine" if metric is None else metric, METRICS)
    return metric or METRICS[0]


def check_retriever(retriever: Retriever[Any]) -> None:
    """Raises unless the parts of a retriever match."""
    if not isinstance(retriever, Retriever):
        raise TypeError(f"retriever must be a Retriever, got {type(retriever).__name__}")
    model_bits, index_bits = retriever.model.num_bits, retriever.index.num_bits
    if retriever.long_codes is not None:
        _check_long_codes(retriever.long_codes, retriever.index, model_bits)
    elif model_bits != index_bits:
        raise ValueError(f"the model makes codes of {model_bits} bits, but the index holds codes of {index_bits} bits")
    if retriever.vectors is not None:
        _check_vectors(retriever, retriever.vectors)


def _check_long_codes(long_codes: jax.Array, index: AnyIndex, model_bits: int) -> None:
    if index.num_bits > model_bits:
        raise ValueError(f"the model makes codes of {model_bits} bits, but the index holds codes of {index.num_bits}")
    check_code_array("long_codes", long_codes, num_words(model_bits))
    if long_codes.ndim != 2:
        raise ValueError(f"long_codes must have shape [n, {num_words(model_bits)}], got {long_codes.shape}")
    _check_rows("long_codes", len(long_codes), index)


def _check_vectors(retriever: Retriever[Any], vectors: jax.Array) -> None:
    shape = retriever.model.input_shape  # of the vectors, also for an `Embedded`
    if retriever.long_codes is not None:
        raise ValueError("a retriever has long codes or vectors, not both: vectors alone rank the candidates exactly")
    if len(shape) != 1:
        raise ValueError(f"vectors are for a model of vectors [d], got a model of items {shape}")
    check_vectors("vectors", vectors)
    if vectors.shape[1:] != shape:
        raise ValueError(f"vectors must have shape [n, {shape[0]}], like the model's items, got {vectors.shape}")
    _check_rows("vectors", len(vectors), retriever.index)


def _check_rows(name: str, num_rows: int, index: AnyIndex) -> None:
    """Raises unless a table has a row for each id of the index."""
    if not isinstance(index, HashIndex):
        raise TypeError(f"{name.replace('_', ' ')} go with a HashIndex, got {type(index).__name__}")
    if not is_traced(index) and id_span(index)[1] >= num_rows:
        raise ValueError(f"{name} has {num_rows} rows, but the index holds the id {id_span(index)[1]}")


def _retrieve(
    retriever: Retriever[Any],
    items: Any,
    allowed: Any = None,
    *,
    k: int,
    slots: int,
    weighted: bool,
    metric: str | None,
    full_batches: bool = False,
) -> Neighbors[Any] | ScoredNeighbors[Any]:
    index = retriever.index
    encode = partial(_encode_queries, weighted=weighted)
    queries = (in_full_batches(encode) if full_batches else encode)(retriever.model, items)
    short_queries = queries.map(lambda words: first_bits(words, index.num_bits))
    candidates = nearest_items(index, short_queries, allowed, k=slots)
    if metric is not None and retriever.vectors is not None:
        return nearest_by_vectors(retriever.vectors, to_floats(items), candidates.ids, k=k, metric=metric)
    if retriever.long_codes is not None:
        return nearest_candidates(retriever.long_codes, queries, candidates.ids, k=k)
    return candidates


def _encode_queries(model: Encoder, items: Any, weighted: bool) -> Queries:
    if not weighted:
        return Queries(encode_items(model, items))
    codes, weights = encode_items_weighted(model, items)
    return Queries(codes, pack_planes(weights), ALL_PLANES)


_compiled_retrieve = entry_point(_retrieve, "k", "slots", "weighted", "metric", "full_batches")


def save_retriever(path: AnyPath, retriever: Retriever[HashIndex]) -> None:
    """Saves a retriever in one file, with vectors as float32.

    Raises like `save_model`, and `TypeError` for a `ShardedIndex`.
    """
    write_archive(path, Archive("retriever", *retriever_to_arrays(retriever)))


def load_retriever(path: AnyPath) -> Retriever[HashIndex]:
    """Loads a retriever. Raises like `load_index`."""
    return retriever_from_archive(path, read_archive(path, "retriever"))


def retriever_to_arrays(retriever: Retriever[HashIndex]) -> tuple[dict[str, Any], Arrays]:
    """Serializes a retriever: JSON data, and arrays by name."""
    check_retriever(retriever)
    if isinstance(retriever.model, Embedded):
        raise TypeError(
            "a file never makes code run, so it can't hold the function of an Embedded: save a Retriever of its model, "
            "and make the Embedded again after loading"
        )
    if isinstance(retriever.index, ShardedIndex):
        raise TypeError(
            "retriever must have a HashIndex to be saved in one file, got a ShardedIndex: use save_model and "
            "save_index, and make a Retriever from load_model and load_sharded_index"
        )
    index_meta, index_arrays = index_to_arrays(retriever.index)
    model_meta, model_arrays = model_to_arrays(retriever.model)
    tables = {} if retriever.long_codes is None else {"long_codes": np.asarray(retriever.long_codes)}
    if retriever.vectors is not None:
        tables["vectors"] = np.asarray(retriever.vectors).astype(np.float32)
    return index_meta | model_meta, index_arrays | model_arrays | tables


def retriever_from_archive(path: AnyPath, archive: Archive) -> Retriever[HashIndex]:
    """Inverts `retriever_to_arrays`; raises `CorruptFileError` if the parts are invalid."""
    model, index = model_from_archive(path, archive), index_from_sorted(*read_sorted(path, archive))
    tables = {name: archive.arrays[name] for name in ("long_codes", "vectors") if name in archive.arrays}
    retriever = Retriever(model, index, **jax.device_put(tables))
    try:
        check_retriever(retriever)
        if "long_codes" in tables:
            check_codes("long_codes", tables["long_codes"], model.num_bits)
        if "vectors" in tables and not np.isfinite(tables["vectors"]).all():
            raise ValueError("vectors hold NaN or infinity")
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: {error}") from None
    return retriever
