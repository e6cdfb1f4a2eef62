"""The codes of an index as numpy compares them: by rank, in words of 64 bits where they have as many."""

from collections.abc import Iterable

import numpy as np

from jaxhash.index.hash_index import HashIndex, code_runs, memory_of
from jaxhash.query.cost_model import Sizes
from jaxhash.query.hits import expand_runs


def group_words(index: HashIndex) -> np.ndarray:
    """All codes by rank, two words joined: uint64 or, of a single word, uint32 `[ceil(w / 2), groups, g]`."""
    return memory_of(index).remember("grouped words", lambda: _group_words(index))


def _group_words(index: HashIndex) -> np.ndarray:
    group_size = index.codes.shape[2]
    table = np.concatenate([np.zeros((0, index.num_words), np.uint32), *code_runs(index)])
    spare = -len(table) % group_size
    words = join_words(np.pad(table, ((0, spare), (0, 0)), mode="edge"))
    return np.ascontiguousarray(words).reshape(len(words), -1, group_size)


def join_words(codes: np.ndarray) -> np.ndarray:
    """Pairs of words of codes uint32 `[n, w]` as uint64 `[ceil(w / 2), n]`; codes of one word stay uint32.

    The pairs stand as they do in memory: for distances, the order of words is the same to us.
    """
    width = codes.shape[1]
    if width == 1:
        return codes.T
    even = np.pad(codes, ((0, 0), (0, 1))) if width % 2 else np.ascontiguousarray(codes)
    return even.view(np.uint64).T


def expand_items(
    index: HashIndex, sizes: Sizes, distances: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first k items of codes `[q, k]` in order: their distances, and where they stand in `ids`."""
    if sizes.num_items == sizes.num_codes:
        return distances, ranks
    offsets = np.asarray(index.offsets)
    first = offsets[ranks]
    counts = offsets[ranks + 1] - first
    left = ranks.shape[1] - (np.cumsum(counts, axis=1, dtype=np.int64) - counts)
    taken = np.clip(left, 0, counts).astype(np.int32).ravel()
    some = taken > 0
    places = expand_runs(first.ravel()[some], taken[some])
    return np.repeat(distances.ravel(), taken).reshape(distances.shape), places.reshape(ranks.shape)


def weigh_differing(words: np.ndarray, wanted: np.ndarray, planes: np.ndarray, exponents: Iterable[int]) -> np.ndarray:
    """The weighted distances between codes, in words `[p, u]`, and a query `[p]`: int32 `[u]`.

    Args:
        words: the codes.
        wanted: the query.
        planes: the bit planes of its weights, in words `[m, p]`.
        exponents: of the weight of a bit in each plane, a power of two.
    """
    differing = words ^ wanted[:, None]
    counts = [np.bitwise_count(differing & plane[:, None]).sum(0, dtype=np.int32) for plane in planes]
    return sum(count << power for count, power in zip(counts, exponents, strict=True))


def count_differing(words: Iterable[np.ndarray], wanted: Iterable[np.ndarray]) -> np.ndarray:
    """The distances between codes and queries, given word by word: uint8, or uint16 of several words."""
    (word, query), *others = zip(words, wanted, strict=True)
    distances = np.bitwise_count(word ^ query)
    if others:
        distances = distances.astype(np.uint16)
    for word, query in others:
        distances += np.bitwise_count(word ^ query)
    return distances
