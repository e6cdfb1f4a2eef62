"""Semantic hashing in JAX: learn short binary codes, and search them exactly by XOR and popcount.

Letters for shapes: n items, q queries, b bits, w = ceil(b / 32) words, k neighbours, u distinct codes.

An index never changes, so threads may share one, and go on searching it while another is made of it. Processes can't be
forked once JAX has run in them (a lock that some thread held then is never released in the child): start them by the
method "spawn" of `multiprocessing` and load the index there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxhash.archive import CorruptFileError
from jaxhash.bits import (
    codes_from_bytes,
    codes_from_integers,
    codes_to_bytes,
    codes_to_integers,
    hamming_distance,
    pack_bits,
    unpack_bits,
)
from jaxhash.changes import add_items, merge_indexes, remove_items
from jaxhash.index import HashIndex, IndexStats, build_index, describe, expected_matches, suggest_num_bits
from jaxhash.matches import RadiusMatches
from jaxhash.search import Neighbors, PaddedMatches, radius_search, radius_search_padded, search

if TYPE_CHECKING:
    from jaxhash.autoencoder import Autoencoder, encode, reconstruct, summary
    from jaxhash.binarize import straight_through_round
    from jaxhash.datasets import Dataset, load_dataset
    from jaxhash.evaluation import precision_at_k, vote_accuracy
    from jaxhash.retriever import Retriever, retrieve
    from jaxhash.storage import load_index, load_model, load_retriever, save_index, save_model, save_retriever
    from jaxhash.training import DivergenceError, History, fit, reconstruction_loss

# Learning and retrieval meet only in packed codes: who only searches need not load flax and optax.
_LAZY = {
    "autoencoder": ("Autoencoder", "encode", "reconstruct", "summary"),
    "binarize": ("straight_through_round",),
    "datasets": ("Dataset", "load_dataset"),
    "evaluation": ("precision_at_k", "vote_accuracy"),
    "retriever": ("Retriever", "retrieve"),
    "storage": ("load_index", "load_model", "load_retriever", "save_index", "save_model", "save_retriever"),
    "training": ("DivergenceError", "History", "fit", "reconstruction_loss"),
}
_ROOM_OF = {name: room for room, names in _LAZY.items() for name in names}

__all__ = [
    "Autoencoder",
    "CorruptFileError",
    "Dataset",
    "DivergenceError",
    "HashIndex",
    "History",
    "IndexStats",
    "Neighbors",
    "PaddedMatches",
    "RadiusMatches",
    "Retriever",
    "add_items",
    "build_index",
    "codes_from_bytes",
    "codes_from_integers",
    "codes_to_bytes",
    "codes_to_integers",
    "describe",
    "encode",
    "expected_matches",
    "fit",
    "hamming_distance",
    "load_dataset",
    "load_index",
    "load_model",
    "load_retriever",
    "merge_indexes",
    "pack_bits",
    "precision_at_k",
    "radius_search",
    "radius_search_padded",
    "reconstruct",
    "reconstruction_loss",
    "remove_items",
    "retrieve",
    "save_index",
    "save_model",
    "save_retriever",
    "search",
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
