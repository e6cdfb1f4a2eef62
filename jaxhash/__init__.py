"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbours, u distinct codes.

Public names are loaded when they are first used, so that importing jaxhash imports neither jax nor flax, and programs
that only search never load flax and optax.

An index never changes, so threads may share one and search it while another is built from it. Processes must not be
forked once JAX has run in them (a lock held by another thread is never released in the child): start them with the
method "spawn" of `multiprocessing` and load the index there.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxhash.archive import CorruptFileError
    from jaxhash.autoencoder import Autoencoder, encode, reconstruct, summary
    from jaxhash.bags import BagMatches, bag_search
    from jaxhash.binarize import straight_through_round
    from jaxhash.bits import (
        codes_from_bytes,
        codes_from_integers,
        codes_to_bytes,
        codes_to_integers,
        first_bits,
        hamming_distance,
        pack_bits,
        unpack_bits,
    )
    from jaxhash.changes import add_items, merge_indexes, remove_items
    from jaxhash.code_statistics import BitStatistics, bit_statistics
    from jaxhash.convolutional import ConvAutoencoder
    from jaxhash.datasets import Dataset, load_dataset
    from jaxhash.density import IndexStats, describe
    from jaxhash.duplicates import duplicate_groups
    from jaxhash.epochs import History
    from jaxhash.estimate import estimate_matches
    from jaxhash.evaluation import precision_at_k, recall, vote_accuracy
    from jaxhash.index import HashIndex, build_index, expected_matches, suggest_num_bits
    from jaxhash.index_storage import load_index, load_sharded_index, save_index
    from jaxhash.matches import RadiusMatches
    from jaxhash.model_files import load_model, save_model
    from jaxhash.objectives import Reconstruct, Retrieve
    from jaxhash.patches import encode_patches, extract_patches
    from jaxhash.pretraining import pretrain
    from jaxhash.ranking import DistanceCounts, distance_counts, mean_average_precision, precision_in_radius
    from jaxhash.reranking import rerank
    from jaxhash.retriever import Retriever, load_retriever, retrieve, save_retriever
    from jaxhash.scan import Neighbors, PaddedMatches
    from jaxhash.search import radius_search, radius_search_padded, search
    from jaxhash.sharding import ShardedIndex, shard_index
    from jaxhash.training import CheckpointError, CodeWarning, DivergenceError, fit, reconstruction_loss
    from jaxhash.warps import AffineWarp

# Public names by the module that defines them.
_MODULES = {
    "archive": ("CorruptFileError",),
    "autoencoder": ("Autoencoder", "encode", "reconstruct", "summary"),
    "bags": ("BagMatches", "bag_search"),
    "binarize": ("straight_through_round",),
    "bits": (
        "codes_from_bytes",
        "codes_from_integers",
        "codes_to_bytes",
        "codes_to_integers",
        "first_bits",
        "hamming_distance",
        "pack_bits",
        "unpack_bits",
    ),
    "changes": ("add_items", "merge_indexes", "remove_items"),
    "code_statistics": ("BitStatistics", "bit_statistics"),
    "convolutional": ("ConvAutoencoder",),
    "datasets": ("Dataset", "load_dataset"),
    "density": ("IndexStats", "describe"),
    "duplicates": ("duplicate_groups",),
    "epochs": ("History",),
    "estimate": ("estimate_matches",),
    "evaluation": ("precision_at_k", "recall", "vote_accuracy"),
    "index": ("HashIndex", "build_index", "expected_matches", "suggest_num_bits"),
    "index_storage": ("load_index", "load_sharded_index", "save_index"),
    "matches": ("RadiusMatches",),
    "model_files": ("load_model", "save_model"),
    "objectives": ("Reconstruct", "Retrieve"),
    "patches": ("encode_patches", "extract_patches"),
    "pretraining": ("pretrain",),
    "ranking": ("DistanceCounts", "distance_counts", "mean_average_precision", "precision_in_radius"),
    "reranking": ("rerank",),
    "retriever": ("Retriever", "load_retriever", "retrieve", "save_retriever"),
    "scan": ("Neighbors", "PaddedMatches"),
    "search": ("radius_search", "radius_search_padded", "search"),
    "sharding": ("ShardedIndex", "shard_index"),
    "training": ("CheckpointError", "CodeWarning", "DivergenceError", "fit", "reconstruction_loss"),
    "warps": ("AffineWarp",),
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
    "HashIndex",
    "History",
    "IndexStats",
    "Neighbors",
    "PaddedMatches",
    "RadiusMatches",
    "Reconstruct",
    "Retrieve",
    "Retriever",
    "ShardedIndex",
    "add_items",
    "bag_search",
    "bit_statistics",
    "build_index",
    "codes_from_bytes",
    "codes_from_integers",
    "codes_to_bytes",
    "codes_to_integers",
    "describe",
    "distance_counts",
    "duplicate_groups",
    "encode",
    "encode_patches",
    "estimate_matches",
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
    "pack_bits",
    "precision_at_k",
    "precision_in_radius",
    "pretrain",
    "radius_search",
    "radius_search_padded",
    "recall",
    "reconstruct",
    "reconstruction_loss",
    "remove_items",
    "rerank",
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


class _Package(ModuleType):
    """Keeps `jaxhash.search` the function, although importing the module of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.search if name == "search" and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package
