"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Where to begin, by what you want to do (each name's docstring says more):

- learn: `Autoencoder`, `ConvAutoencoder`, `PatchEncoder`, `fit` with an `Objective` (`Reconstruct`, `Retrieve`,
  `KeepNeighbors`, `GroupByKind`, `FindDuplicates`), `AffineWarp`, `PhotoWarp`; `Embedded` for a network of
  yours; then `encode`, `encode_weighted`, `reconstruct`, `encode_patches`; `extract_patches`, `summary`,
  `reconstruction_loss`, `straight_through_round`.
- codes of your own: `pack_bits`, `unpack_bits`, `first_bits`, `hamming_distance`, `codes_from_bytes`,
  `codes_to_bytes`, `codes_from_integers`, `codes_to_integers`.
- index: `build_index`, `add_items`, `remove_items`, `merge_indexes`, `describe`, `suggest_num_bits`,
  `expected_matches`; on many devices `shard_index`, `build_sharded_index`.
- search: `search`, `radius_search`, `bag_search`; from images by a `Retriever` with `retrieve`; `rerank`,
  `rerank_vectors`; pairs by `neighbor_pairs`, `duplicate_groups`, `deduplicate`; `prepare`; inside your own `jit` also
  `radius_search_padded`, `build_tables`.
- judge: `vote_accuracy`, `precision_at_k`, `recall`, `mean_average_precision`, `precision_in_radius`,
  `distance_counts`, `bit_statistics`.
- keep: `save_index`, `save_model`, `save_retriever`, `load_index`, `load_model`, `load_retriever`,
  `load_sharded_index`; `load_dataset` for data to try.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbours, u distinct codes.

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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxhash.codes.bits import (
        codes_from_bytes,
        codes_from_integers,
        codes_to_bytes,
        codes_to_integers,
        first_bits,
        hamming_distance,
        pack_bits,
        unpack_bits,
    )
    from jaxhash.codes.statistics import BitStatistics, bit_statistics
    from jaxhash.datasets import Dataset, load_dataset
    from jaxhash.files.archive import CorruptFileError
    from jaxhash.index.building import build_index
    from jaxhash.index.changes import add_items, merge_indexes, remove_items
    from jaxhash.index.density import IndexStats, describe, expected_matches, suggest_num_bits
    from jaxhash.index.file import load_index, load_sharded_index, save_index
    from jaxhash.index.hash_index import HashIndex
    from jaxhash.index.probe_tables import ProbeTables
    from jaxhash.index.sharded_building import build_sharded_index
    from jaxhash.index.sharding import ShardedIndex, shard_index
    from jaxhash.metrics.neighbors import precision_at_k, recall, vote_accuracy
    from jaxhash.metrics.ranking import DistanceCounts, distance_counts, mean_average_precision, precision_in_radius
    from jaxhash.models.autoencoder import Autoencoder, summary
    from jaxhash.models.code_layer import straight_through_round
    from jaxhash.models.convolutional import ConvAutoencoder
    from jaxhash.models.embedded import Embedded
    from jaxhash.models.encoding import encode, encode_weighted, reconstruct
    from jaxhash.models.file import load_model, save_model
    from jaxhash.models.patch_encoder import PatchEncoder
    from jaxhash.models.patches import encode_patches, extract_patches
    from jaxhash.query.bags import bag_search
    from jaxhash.query.nearest import search
    from jaxhash.query.pairs.items import deduplicate, duplicate_groups, neighbor_pairs
    from jaxhash.query.probe.tables import build_tables, prepare
    from jaxhash.query.radius import radius_search, radius_search_padded
    from jaxhash.query.rerank import rerank, rerank_vectors
    from jaxhash.query.results import (
        BagMatches,
        NeighborPairs,
        Neighbors,
        PaddedMatches,
        RadiusMatches,
        Redundant,
        ScoredNeighbors,
    )
    from jaxhash.retriever import Retriever, load_retriever, retrieve, save_retriever
    from jaxhash.training.advice import CodeWarning, QualityWarning
    from jaxhash.training.augment import AffineWarp, PhotoWarp
    from jaxhash.training.duplicates import FindDuplicates
    from jaxhash.training.epoch import History
    from jaxhash.training.errors import CheckpointError, DivergenceError
    from jaxhash.training.fitting import fit
    from jaxhash.training.losses import reconstruction_loss
    from jaxhash.training.objectives import Objective, Reconstruct, Retrieve
    from jaxhash.training.vector_objectives import GroupByKind, KeepNeighbors

# Public names by the module that defines them.
_MODULES = {
    "codes.bits": (
        "codes_from_bytes",
        "codes_from_integers",
        "codes_to_bytes",
        "codes_to_integers",
        "first_bits",
        "hamming_distance",
        "pack_bits",
        "unpack_bits",
    ),
    "codes.statistics": ("BitStatistics", "bit_statistics"),
    "datasets": ("Dataset", "load_dataset"),
    "files.archive": ("CorruptFileError",),
    "index.building": ("build_index",),
    "index.changes": ("add_items", "merge_indexes", "remove_items"),
    "index.density": ("IndexStats", "describe", "expected_matches", "suggest_num_bits"),
    "index.file": ("load_index", "load_sharded_index", "save_index"),
    "index.hash_index": ("HashIndex",),
    "index.probe_tables": ("ProbeTables",),
    "index.sharded_building": ("build_sharded_index",),
    "index.sharding": ("ShardedIndex", "shard_index"),
    "metrics.neighbors": ("precision_at_k", "recall", "vote_accuracy"),
    "metrics.ranking": ("DistanceCounts", "distance_counts", "mean_average_precision", "precision_in_radius"),
    "models.autoencoder": ("Autoencoder", "summary"),
    "models.code_layer": ("straight_through_round",),
    "models.convolutional": ("ConvAutoencoder",),
    "models.embedded": ("Embedded",),
    "models.encoding": ("encode", "encode_weighted", "reconstruct"),
    "models.file": ("load_model", "save_model"),
    "models.patch_encoder": ("PatchEncoder",),
    "models.patches": ("encode_patches", "extract_patches"),
    "query.bags": ("bag_search",),
    "query.nearest": ("search",),
    "query.pairs.items": ("deduplicate", "duplicate_groups", "neighbor_pairs"),
    "query.probe.tables": ("build_tables", "prepare"),
    "query.radius": ("radius_search", "radius_search_padded"),
    "query.rerank": ("rerank", "rerank_vectors"),
    "query.results": (
        "BagMatches",
        "NeighborPairs",
        "Neighbors",
        "PaddedMatches",
        "RadiusMatches",
        "Redundant",
        "ScoredNeighbors",
    ),
    "retriever": ("Retriever", "load_retriever", "retrieve", "save_retriever"),
    "training.advice": ("CodeWarning", "QualityWarning"),
    "training.augment": ("AffineWarp", "PhotoWarp"),
    "training.duplicates": ("FindDuplicates",),
    "training.epoch": ("History",),
    "training.errors": ("CheckpointError", "DivergenceError"),
    "training.fitting": ("fit",),
    "training.losses": ("reconstruction_loss",),
    "training.objectives": ("Objective", "Reconstruct", "Retrieve"),
    "training.vector_objectives": ("GroupByKind", "KeepNeighbors"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("datasets", "index", "plots")

__all__ = [
    "AffineWarp",
    "Autoencoder",
    "BagMatches",
    "BitStatistics",
    "CheckpointError",
    "CodeWarning",
    "ConvAutoencoder",
    "CorruptFileError",
    "Dataset",
    "DistanceCounts",
    "DivergenceError",
    "Embedded",
    "FindDuplicates",
    "GroupByKind",
    "HashIndex",
    "History",
    "IndexStats",
    "KeepNeighbors",
    "NeighborPairs",
    "Neighbors",
    "Objective",
    "PaddedMatches",
    "PatchEncoder",
    "PhotoWarp",
    "ProbeTables",
    "QualityWarning",
    "RadiusMatches",
    "Reconstruct",
    "Redundant",
    "Retrieve",
    "Retriever",
    "ScoredNeighbors",
    "ShardedIndex",
    "add_items",
    "bag_search",
    "bit_statistics",
    "build_index",
    "build_sharded_index",
    "build_tables",
    "codes_from_bytes",
    "codes_from_integers",
    "codes_to_bytes",
    "codes_to_integers",
    "deduplicate",
    "describe",
    "distance_counts",
    "duplicate_groups",
    "encode",
    "encode_patches",
    "encode_weighted",
    "expected_matches",
    "extract_patches",
    "first_bits",
    "fit",
    "hamming_distance",
    "load_dataset",
    "load_index",
    "load_model",
    "load_retriever",
    "load_sharded_index",
    "mean_average_precision",
    "merge_indexes",
    "neighbor_pairs",
    "pack_bits",
    "precision_at_k",
    "precision_in_radius",
    "prepare",
    "radius_search",
    "radius_search_padded",
    "recall",
    "reconstruct",
    "reconstruction_loss",
    "remove_items",
    "rerank",
    "rerank_vectors",
    "retrieve",
    "save_index",
    "save_model",
    "save_retriever",
    "search",
    "shard_index",
    "straight_through_round",
    "suggest_num_bits",
    "summary",
    "unpack_bits",
    "vote_accuracy",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"jaxhash.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxhash' has no attribute {name!r}")
    value = getattr(import_module(f"jaxhash.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
