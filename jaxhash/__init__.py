"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbours, u distinct codes.

An index never changes, so threads may share one, and go on searching it while another is made of it. Processes can't be
forked once JAX has run in them (a lock that some thread held then is never released in the child): start them by the
method "spawn" of `multiprocessing` and load the index there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxhash.archive import CorruptFileError
from jaxhash.bags import BagMatches, bag_search
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
from jaxhash.density import IndexStats, describe
from jaxhash.duplicates import duplicate_groups
from jaxhash.index import HashIndex, build_index, expected_matches, suggest_num_bits
from jaxhash.matches import RadiusMatches
from jaxhash.reranking import rerank
from jaxhash.scan import Neighbors, PaddedMatches
from jaxhash.search import radius_search, radius_search_padded, search
from jaxhash.sharding import ShardedIndex, shard_index

if TYPE_CHECKING:
    from jaxhash.autoencoder import Autoencoder, encode, reconstruct, summary
    from jaxhash.binarize import straight_through_round
    from jaxhash.code_statistics import BitStatistics, bit_statistics
    from jaxhash.convolutional import ConvAutoencoder
    from jaxhash.datasets import Dataset, load_dataset
    from jaxhash.epochs import History
    from jaxhash.estimate import estimate_matches
    from jaxhash.evaluation import precision_at_k, recall, vote_accuracy
    from jaxhash.objectives import Reconstruct, Retrieve
    from jaxhash.patches import encode_patches, extract_patches
    from jaxhash.pretraining import pretrain
    from jaxhash.ranking import DistanceCounts, distance_counts, mean_average_precision, precision_in_radius
    from jaxhash.retriever import Retriever, retrieve
    from jaxhash.storage import (
        load_index,
        load_model,
        load_retriever,
        load_sharded_index,
        save_index,
        save_model,
        save_retriever,
    )
    from jaxhash.training import CheckpointError, CodeWarning, DivergenceError, fit, reconstruction_loss
    from jaxhash.warps import AffineWarp

# Learning and retrieval meet only in packed codes: who only searches need not load flax and optax.
_LAZY = {
    "autoencoder": ("Autoencoder", "encode", "reconstruct", "summary"),
    "binarize": ("straight_through_round",),
    "code_statistics": ("BitStatistics", "bit_statistics"),
    "convolutional": ("ConvAutoencoder",),
    "datasets": ("Dataset", "load_dataset"),
    "epochs": ("History",),
    "estimate": ("estimate_matches",),
    "evaluation": ("precision_at_k", "recall", "vote_accuracy"),
    "objectives": ("Reconstruct", "Retrieve"),
    "patches": ("encode_patches", "extract_patches"),
    "pretraining": ("pretrain",),
    "ranking": ("DistanceCounts", "distance_counts", "mean_average_precision", "precision_in_radius"),
    "retriever": ("Retriever", "retrieve"),
    "storage": (
        "load_index",
        "load_model",
        "load_retriever",
        "load_sharded_index",
        "save_index",
        "save_model",
        "save_retriever",
    ),
    "training": ("CheckpointError", "CodeWarning", "DivergenceError", "fit", "reconstruction_loss"),
    "warps": ("AffineWarp",),
}
_ROOM_OF = {name: room for room, names in _LAZY.items() for name in names}

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
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'jaxhash' has no attribute {name!r}")
    value = getattr(import_module(f"jaxhash.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
