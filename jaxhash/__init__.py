"""Semantic hashing in JAX: learn short binary codes and search them exactly by XOR and popcount.

Functions by task:

- Convert codes: `pack_bits`, `unpack_bits`, `codes_from_bytes`, `codes_to_bytes`, `hamming_distance`.
- Learn codes: `Autoencoder`, `ConvAutoencoder`, `PatchEncoder`, or `Embedded` with your own feature extractor; train
  with `fit`; then `encode`, `encode_weighted`, `reconstruct`. `load_dataset` loads example data.
- Index codes: `build_index`, `suggest_num_bits`, `describe`; update with `add_items`, `remove_items`, `merge_indexes`.
  On several devices: `shard_index`, `build_sharded_index`, `load_sharded_index`.
- Search: `search` for the k nearest items, `radius_search` for all items within a radius, `bag_search` for items with
  several codes, `retrieve` with a `Retriever` for images. Rerank with `rerank`, `rerank_vectors`. Near duplicates:
  `neighbor_pairs`, `duplicate_groups`, `deduplicate`. Inside `jit`: `radius_search_padded`, `build_tables`. `prepare`
  builds address tables for later searches.
- Save and load: `save_index`, `save_model`, `save_retriever`, `load_index`, `load_model`, `load_retriever`.

Packages hold these names by topic, and all others: `codes`, `index`, `query` (with result types), `metrics`, `models`,
`training` (objectives, warps, warnings), `datasets`, and `plots`, which needs matplotlib. `jaxhash.metrics.recall`
works after `import jaxhash`.

Shape letters: n items, q queries, b bits, w = ceil(b / 32) words, k neighbors, u distinct codes.

Public names are imported on first use. So `import jaxhash` imports neither jax nor flax, and programs that only search
never import flax and optax.

Searches, reranking and conversions return numpy arrays for numpy arrays. For JAX arrays, traced or not, they return JAX
arrays on the same device. The queries decide, or the images of `retrieve`. Results of unknown length (`radius_search`,
`neighbor_pairs`, `duplicate_groups`, `deduplicate`) are always numpy arrays. Networks (`encode`, `encode_weighted`,
`reconstruct`) always return JAX arrays.

An index is immutable, so threads can share it and search it while another is built from it. Do not fork processes after
JAX has run (a lock held by another thread is never released in the child): start them with the `multiprocessing`
method "spawn" and load the index there.
"""

import ast
import linecache
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

_SOURCE = "".join(linecache.getlines(__file__, globals()))

# The table of public names. Type checkers follow these imports; at run time the table is read from the source, and each
# name is imported on first use. Without the source, as in a frozen program, all are imported here.
if TYPE_CHECKING or not _SOURCE:
    from jaxhash import (
        codes as codes,
        datasets as datasets,
        index as index,
        metrics as metrics,
        models as models,
        query as query,
        training as training,
    )
    from jaxhash.codes import (
        codes_from_bytes as codes_from_bytes,
        codes_to_bytes as codes_to_bytes,
        hamming_distance as hamming_distance,
        pack_bits as pack_bits,
        unpack_bits as unpack_bits,
    )
    from jaxhash.datasets import load_dataset as load_dataset
    from jaxhash.files import CorruptFileError as CorruptFileError
    from jaxhash.index import (
        HashIndex as HashIndex,
        ShardedIndex as ShardedIndex,
        add_items as add_items,
        build_index as build_index,
        build_sharded_index as build_sharded_index,
        describe as describe,
        load_index as load_index,
        load_sharded_index as load_sharded_index,
        merge_indexes as merge_indexes,
        remove_items as remove_items,
        save_index as save_index,
        shard_index as shard_index,
        suggest_num_bits as suggest_num_bits,
    )
    from jaxhash.models import (
        Autoencoder as Autoencoder,
        ConvAutoencoder as ConvAutoencoder,
        Embedded as Embedded,
        PatchEncoder as PatchEncoder,
        encode as encode,
        encode_weighted as encode_weighted,
        load_model as load_model,
        reconstruct as reconstruct,
        save_model as save_model,
    )
    from jaxhash.query import (
        bag_search as bag_search,
        build_tables as build_tables,
        deduplicate as deduplicate,
        duplicate_groups as duplicate_groups,
        neighbor_pairs as neighbor_pairs,
        prepare as prepare,
        radius_search as radius_search,
        radius_search_padded as radius_search_padded,
        rerank as rerank,
        rerank_vectors as rerank_vectors,
        search as search,
    )
    from jaxhash.retriever import (
        Retriever as Retriever,
        load_retriever as load_retriever,
        retrieve as retrieve,
        save_retriever as save_retriever,
    )
    from jaxhash.training import fit as fit
if TYPE_CHECKING:
    from jaxhash import plots as plots  # needs matplotlib

_HOMES = {
    alias.name: node.module
    for node in ast.walk(ast.parse(_SOURCE))
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
    if alias.asname
}
_PACKAGES = [name for name, module in _HOMES.items() if module == "jaxhash"]

# Earlier names that were not merely moved to a package.
_RENAMED = {
    "BagMatches": "jaxhash.query.ScoredNeighbors",
    "ProbedMatches": "jaxhash.query.PaddedMatches",
    "estimate_matches": "the mean of jaxhash.radius_search_padded(..., max_results=1).counts",
    "pretrain": "a function in notebooks/papers.ipynb",
    "probe_padded": "jaxhash.radius_search_padded(..., tables=...)",
    "weighted_search": "jaxhash.search(..., weights=...)",
}


def _find_new_name(name: str) -> str:
    """Returns the end of an error message: the current name if `name` is from an earlier version, else nothing."""
    if name in _RENAMED:
        return f": it is {_RENAMED[name]}"
    for package in [] if name.startswith("_") else _PACKAGES:
        with suppress(ImportError):  # plots needs matplotlib
            if name in getattr(import_module(f"jaxhash.{package}"), "__all__", ()):
                return f": it is jaxhash.{package}.{name}"
    return ""


def __dir__() -> list[str]:
    return sorted(_HOMES)


if not TYPE_CHECKING:  # else type checkers would accept any name
    __all__ = sorted(_HOMES.keys() - set(_PACKAGES))

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'jaxhash' has no attribute {name!r}{_find_new_name(name)}")
        if name in _PACKAGES:
            return import_module(f"jaxhash.{name}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
