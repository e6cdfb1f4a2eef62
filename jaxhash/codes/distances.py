"""Hamming distances, plain or with the query's weights of the differing bits.

The weighted distance is computed from bit planes of the weights (see `codes.weights`): the sum over planes p of
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

# Codes, one array per word.
Words = Sequence[np.ndarray] | np.ndarray


@partial(jax.tree_util.register_dataclass, data_fields=["words", "planes"], meta_fields=["exponents"])
@dataclass(eq=False)
class Queries:
    """Query codes, with or without weights of their bits.

    words: uint32 `[..., w]`.
    planes: uint32 `[..., p, w]`, the bit planes of the weights, packed like codes; `None` if all weights are 1.
    exponents: the bits of plane p have the weight `2**exponents[p]`; ascending (static).
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
        """Computes distances to codes with their words along `axis`, which is reduced: uint32. Traceable.

        `align` reshapes query words, uint32 `[..., w]`, to broadcast with the codes.
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
        """Computes distances to codes given as one array per word: uint32. Traceable.

        XLA fuses this into one loop. `align` reshapes one word of each query, uint32 `[...]`, to broadcast with a word
        of the codes.
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
        """Returns the largest distance possible with this many words."""
        width: int = self.words.shape[-1]
        return 32 * width * sum(1 << power for power in self.exponents)


def _count_bits(words: Sequence[jax.Array]) -> jax.Array:
    """Counts the set bits of codes given as one array per word: uint32."""
    total = lax.population_count(words[0])
    for word in words[1:]:
        total += lax.population_count(word)
    return total


def join_words(codes: np.ndarray) -> np.ndarray:
    """Joins pairs of words of codes uint32 `[n, w]`: uint64 `[ceil(w / 2), n]`. Codes of one word stay uint32 `[1, n]`.

    Pairs keep native byte order, since distances do not depend on the order of words.
    """
    width = codes.shape[1]
    if width == 1:
        return codes.T
    even = np.pad(codes, ((0, 0), (0, 1))) if width % 2 else codes
    return np.ascontiguousarray(even).view(np.uint64).T


def count_differing(words: Words, query_words: Words) -> np.ndarray:
    """Counts the bits in which codes and queries differ: uint8 for a single word, else uint16."""
    distances = np.bitwise_count(words[0] ^ query_words[0])
    if len(words) == 1:
        return distances
    distances = distances.astype(np.uint16)
    for word, query_word in zip(words[1:], query_words[1:], strict=True):
        distances += np.bitwise_count(word ^ query_word)
    return distances


def weigh_differing(words: Words, query_words: Words, planes: Sequence[Words], powers: Sequence[int]) -> np.ndarray:
    """Computes weighted distances between codes and queries with bit planes: uint32."""
    differing = [word ^ query_word for word, query_word in zip(words, query_words, strict=True)]
    total = np.uint32(0)
    for masks, power in zip(planes, powers, strict=True):
        count = sum(
            np.bitwise_count(word & mask).astype(np.uint32) for word, mask in zip(differing, masks, strict=True)
        )
        total = total + (count << np.uint32(power))
    return np.asarray(total)
