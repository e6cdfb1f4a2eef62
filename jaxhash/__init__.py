"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Where to begin, by what you want to do (each name's docstring says more):

- Codes you have: `codes_from_bytes`, `pack_bits`; back by `codes_to_bytes`, `unpack_bits`; `hamming_distance`.
- Learn codes: `Autoencoder`, `ConvAutoencoder`, `PatchEncoder`, or `Embedded` for a network of yours; train by `fit`;
  then `encode`, `encode_weighted`, `reconstruct`. `load_dataset` gives data to try.
- Index codes: `build_index`, `suggest_num_bits`, `describe`; change an index by `add_items`, `remove_items`,
  `merge_indexes`. On several devices: `shard_index`, `build_sharded_index`, `load_sharded_index`.
- Search: `search` for the k nearest, `radius_search` for all within a radius, `bag_search` for items of several codes,
  `retrieve` with a `Retriever` for images. Sort a shortlist by `rerank`, `rerank_vectors`. Near duplicates:
  `neighbor_pairs`, `duplicate_groups`, `deduplicate`. Inside your own `jit`: `radius_search_padded`, `build_tables`.
  `prepare` builds what later searches need.
- Keep: `save_index`, `save_model`, `save_retriever`, and `load_index`, `load_model`, `load_retriever`.

The rest is in packages, which also hold the names above by topic: `codes`, `index`, `query` (the types of results),
`metrics` (measures of searches), `models`, `training` (objectives, warps, warnings), `datasets`, and `plots`, which
needs matplotlib. `jaxhash.metrics.recall` works after `import jaxhash`.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbors, u distinct codes.

Public names are loaded when they are first used, so that importing jaxhash imports neither jax nor flax, and programs
that only search never load flax and optax.

Searches, reranking and conversions answer in kind: numpy arrays give numpy arrays, and JAX arrays, traced or not, give
JAX arrays, which stay on their device. The kind of the queries decides; `retrieve` follows its images. Results of
unknown length (`radius_search`, `neighbor_pairs`, `duplicate_groups`, `deduplicate`) are always numpy arrays. Networks
(`encode`, `encode_weighted`, `reconstruct`) always give JAX arrays.

An index never changes, so threads may share one and search it while another is built from it. Processes must not be
forked once JAX has run in them (a lock held by another thread is never released in the child): start them with the
method "spawn" of `multiprocessing` and load the index there.
"""

import ast
import linecache
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

_SOURCE = "".join(linecache.getlines(__file__, globals()))

# The table of public names. Type checkers follow these imports; at run time the table is read from the source, and each
# name is imported when it is first used. Without the source, as in a frozen program, all are imported here.
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

# What is not merely in a package now, but has another name.
_RENAMED = {
    "BagMatches": "jaxhash.query.ScoredNeighbors",
    "ProbedMatches": "jaxhash.query.PaddedMatches",
    "estimate_matches": "the mean of jaxhash.radius_search_padded(..., max_results=1).counts",
    "pretrain": "a function in notebooks/papers.ipynb",
    "probe_padded": "jaxhash.radius_search_padded(..., tables=...)",
    "weighted_search": "jaxhash.search(..., weights=...)",
}


def _find_new_name(name: str) -> str:
    """The end of an error's message: what a name of an earlier version is called now, if it was one."""
    if name in _RENAMED:
        return f": it is {_RENAMED[name]}"
    for package in [] if name.startswith("_") else _PACKAGES:
        with suppress(ImportError):  # plots needs matplotlib
            if name in getattr(import_module(f"jaxhash.{package}"), "__all__", ()):
                return f": it is jaxhash.{package}.{name}"
    return ""


def __dir__() -> list[str]:
    return sorted(_HOMES)


if not TYPE_CHECKING:  # or type checkers would take any name for a public one
    __all__ = sorted(_HOMES.keys() - set(_PACKAGES))

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'jaxhash' has no attribute {name!r}{_find_new_name(name)}")
        if name in _PACKAGES:
            return import_module(f"jaxhash.{name}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
