"""Distances between codes: the number of bits that differ, or the sum of the query's weights of these bits.

The weighted distance comes from bit planes of the weights (see `codes.weights`): it is the sum over planes p of
`2^p popcount((query ^ code) & plane_p)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Codes word by word.
Words = Sequence[np.ndarray] | np.ndarray


@partial(jax.tree_util.register_dataclass, data_fields=["words", "planes"], meta_fields=["exponents"])
@dataclass(eq=False)
class Queries:
    """Codes to search for, with or without weights of their bits.

    words: uint32 `[..., w]`.
    planes: uint32 `[..., p, w]`, the bit planes of the weights, packed as codes; `None` if every bit counts 1.
    exponents: the bits of plane p weigh `2**exponents[p]`; ascending (static).
    """

    words: Any
    planes: Any = None
    exponents: tuple[int, ...] = (0,)

    def map(self, function: Callable[[Any], Any]) -> "Queries":
        """Applies a function to the arrays."""
        if self.planes is None:
            return Queries(function(self.words))
        return Queries(function(self.words), function(self.planes), self.exponents)

    def measure(self, codes: Any, align: Callable[[Any], Any], axis: int) -> jax.Array:
        """Computes the distances to codes with their words along an axis: uint32, without it; to be traced.

        `align` brings words of the queries, uint32 `[..., w]`, to axes that broadcast with those of the codes.
        """
        differing = codes ^ align(self.words)
        if self.planes is None:
            return lax.population_count(differing).sum(axis, dtype=np.uint32)
        total = jnp.uint32(0)
        for plane, power in enumerate(self.exponents):
            count = lax.population_count(differing & align(self.planes[..., plane, :])).sum(axis, dtype=np.uint32)
            total = total + (count << np.uint32(power))
        return total

    def measure_words(self, codes: Sequence[Any], align: Callable[[Any], Any]) -> jax.Array:
        """Computes the distances to many codes that are given word by word: uint32; to be traced.

        XLA makes one loop of this. `align` brings one number of each query, uint32 `[...]`, to axes that broadcast with
        those of a word.
        """
        differing = [code ^ align(self.words[..., word]) for word, code in enumerate(codes)]
        if self.planes is None:
            return _count_bits(differing)

        def count(plane: int) -> jax.Array:
            masks = [align(self.planes[..., plane, word]) for word in range(len(codes))]
            return _count_bits([word & mask for word, mask in zip(differing, masks, strict=True)])

        total = count(-1)  # Horner's rule over the planes
        for plane in range(len(self.exponents) - 2, -1, -1):
            total = (total << np.uint32(self.exponents[plane + 1] - self.exponents[plane])) + count(plane)
        return total << np.uint32(self.exponents[0])

    def largest_distance(self) -> int:
        """The largest distance that codes of this many words can have."""
        width: int = self.words.shape[-1]
        return 32 * width * sum(1 << power for power in self.exponents)


def _count_bits(words: Sequence[jax.Array]) -> jax.Array:
    """Counts the bits that are set in some words, which are given one by one: uint32."""
    total = lax.population_count(words[0])
    for word in words[1:]:
        total += lax.population_count(word)
    return total


def join_words(codes: np.ndarray) -> np.ndarray:
    """Joins pairs of words of codes uint32 `[n, w]`: uint64 `[ceil(w / 2), n]`. Codes of one word stay uint32 `[1, n]`.

    The pairs stand as they do in memory, since the order of words makes no difference to distances.
    """
    width = codes.shape[1]
    if width == 1:
        return codes.T
    even = np.pad(codes, ((0, 0), (0, 1))) if width % 2 else codes
    return np.ascontiguousarray(even).view(np.uint64).T


def count_differing(words: Words, wanted: Words) -> np.ndarray:
    """Counts the bits in which codes and queries differ, given word by word: uint8, or uint16 of several words."""
    distances = np.bitwise_count(words[0] ^ wanted[0])
    if len(words) == 1:
        return distances
    distances = distances.astype(np.uint16)
    for word, other in zip(words[1:], wanted[1:], strict=True):
        distances += np.bitwise_count(word ^ other)
    return distances


def weigh_differing(words: Words, wanted: Words, planes: Sequence[Words], powers: Sequence[int]) -> np.ndarray:
    """Weighs the bits in which codes and queries differ: uint32. `planes` are those of the queries, word by word."""
    differing = [word ^ other for word, other in zip(words, wanted, strict=True)]
    total = np.uint32(0)
    for masks, power in zip(planes, powers, strict=True):
        count = sum(
            np.bitwise_count(word & mask).astype(np.uint32) for word, mask in zip(differing, masks, strict=True)
        )
        total = total + (count << np.uint32(power))
    return np.asarray(total)
