"""All pairs of codes within a radius, each once.

If the bits are cut into m > r slices, two codes within radius r agree in at least m - r slices. For each choice of
m - r slices, the codes are sorted by the bits of these slices, and only codes that agree in all of them are compared
(Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling"). A pair that agrees in more slices counts
for the first choice only.

Runs of agreeing codes are compared by shifting: each code with the next one, then with the one after that, and so on.
This lists near pairs only and gathers nothing, in a quarter of the time.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxhash.codes.distances import Words, count_differing, join_words
from jaxhash.codes.sorting import expand_runs, find_run_starts
from jaxhash.index.address_table import Slice, extract_addresses
from jaxhash.index.hash_index import HashIndex, sizes_of, sorted_arrays
from jaxhash.query.plan import LIMITS, Limits, scan_cost
from jaxhash.query.scan.host import hits_by_scan


class NearCodes(NamedTuple):
    """Pairs of distinct codes within a radius, in no order."""

    first: np.ndarray  # int32 [m], the rank of one code
    second: np.ndarray  # int32 [m], the rank of the other
    distances: np.ndarray  # int32 [m]


class Cut(NamedTuple):
    """Slices of the bits and the number of slices in which near codes agree; no slices to compare all codes."""

    slices: tuple[Slice, ...]
    agreeing: int


def find_near_codes(index: HashIndex, radius: int, limits: Limits = LIMITS) -> Iterator[NearCodes]:
    """Yields all pairs of distinct codes within a radius, each once, in batches."""
    if radius == 0 or sizes_of(index).num_codes < 2:
        return
    table = sorted_arrays(index)[0]
    cut = plan_cut(index, table, radius, limits)
    if cut is None:
        yield from _scan(index, table, radius, limits)
        return
    words = np.ascontiguousarray(join_words(table))
    addresses = [extract_addresses(table, bits) for bits in cut.slices]
    masks: Words = []
    if cut.slices:
        masks = join_words(np.stack([_mask_slice(bits, table.shape[1]) for bits in cut.slices]))
    for chosen in itertools.combinations(range(len(cut.slices)), cut.agreeing):
        keys = _join_addresses(addresses, cut.slices, chosen, len(table))
        yield from batch_pairs(_compare_runs(words, keys, radius, _Owner(masks, chosen), limits), limits.listed // 2)


def plan_cut(index: HashIndex, table: np.ndarray, radius: int, limits: Limits) -> Cut | None:
    """Returns the cheapest cut, or `None` if a compiled scan is cheaper."""
    num_pairs, per_pair = math.comb(len(table), 2), limits.compare_pair * -(-table.shape[1] // 2)
    costs: dict[Cut | None, float] = {
        Cut((), 0): num_pairs * per_pair,
        None: limits.compile + scan_cost(sizes_of(index), len(table), limits),
    }
    if min(costs.values()) > limits.min_sampled_cost:
        sample = table[np.random.default_rng(0).permutation(len(table))[: limits.sample]]
        for agreeing in (1, 2, 3):
            cut = _make_cut(index.num_bits, radius, agreeing, limits)
            if cut is not None:
                sorts = math.comb(len(cut.slices), agreeing)
                agreeing_share = _count_agreeing(sample, cut) / math.comb(len(sample), 2)
                costs[cut] = sorts * len(table) * limits.sort_code + agreeing_share * num_pairs * per_pair
    return min(costs, key=lambda cut: costs[cut])


def _make_cut(num_bits: int, radius: int, agreeing: int, limits: Limits) -> Cut | None:
    """Cuts all bits into `radius + agreeing` slices; `None` with too few bits or too many sorts."""
    count = radius + agreeing
    if count > num_bits or math.comb(count, agreeing) > limits.max_sorts:
        return None
    ends = [num_bits * i // count for i in range(count + 1)]
    longest = 32 // agreeing  # keys have 32 bits
    return Cut(tuple(Slice(a, min(b - a, longest)) for a, b in itertools.pairwise(ends)), agreeing)


def _count_agreeing(sample: np.ndarray, cut: Cut) -> int:
    """Counts the comparisons of a sample with itself."""
    addresses = [extract_addresses(sample, bits) for bits in cut.slices]
    total = 0
    for chosen in itertools.combinations(range(len(cut.slices)), cut.agreeing):
        keys = np.sort(_join_addresses(addresses, cut.slices, chosen, len(sample)))
        sizes = np.diff(np.append(find_run_starts(keys), len(keys)))
        total += int((sizes * (sizes - 1) // 2).sum())
    return total


def _join_addresses(
    addresses: Sequence[np.ndarray], slices: Sequence[Slice], chosen: Sequence[int], count: int
) -> np.ndarray:
    """Joins the bits of the chosen slices to one key per code: uint64 `[count]`."""
    keys = np.zeros(count, np.uint64)
    for number in chosen:
        keys = (keys << np.uint64(slices[number].size)) | addresses[number]
    return keys


def _mask_slice(bits: Slice, width: int) -> np.ndarray:
    """Returns a code uint32 `[w]` with the bits of a slice set."""
    whole = ((1 << bits.size) - 1) << (32 * width - bits.first - bits.size)
    return np.array([whole >> 32 * (width - 1 - i) & 0xFFFFFFFF for i in range(width)], np.uint32)


class _Owner(NamedTuple):
    """Selects the pairs that count for a choice of slices."""

    masks: Words  # uint64 [m] for each word: the bits of each slice
    chosen: tuple[int, ...]

    def owns(self, differing: Sequence[np.ndarray]) -> np.ndarray:
        """Marks pairs that agree in the chosen slices and in no other slice before the last of them: bool `[h]`."""
        owned = np.ones(len(differing[0]), bool)
        for number in range(self.chosen[-1] + 1 if self.chosen else 0):
            inside = [word & mask[number] for word, mask in zip(differing, self.masks, strict=True) if mask[number]]
            differs = inside[0] != 0
            for word in inside[1:]:
                differs |= word != 0
            owned &= ~differs if number in self.chosen else differs
        return owned


def _compare_runs(words: Words, keys: np.ndarray, radius: int, owner: _Owner, limits: Limits) -> Iterator[NearCodes]:
    """Yields the near pairs among codes with equal keys.

    Runs are sorted by descending length, so the runs of at least a given length form a prefix.
    """
    packed = np.sort(keys << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))
    starts = find_run_starts(packed >> np.uint64(32))
    sizes = np.diff(np.append(starts, len(keys)))
    by_size = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes > 1)]
    starts, sizes = starts[by_size], sizes[by_size]
    ranks = (packed & np.uint64(0xFFFFFFFF)).astype(np.int32)[expand_runs(starts, sizes)]
    ends = np.append(0, np.cumsum(sizes))
    first = 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + limits.run_codes, side="right")) - 1)
        chunk = ranks[ends[first] : ends[last]]
        for shift, near, distances in _compare_shifted(
            [word[chunk] for word in words], sizes[first:last], radius, owner
        ):
            yield NearCodes(chunk[near], chunk[near + shift], distances.astype(np.int32))
        first = last


def _compare_shifted(
    words: Words, sizes: np.ndarray, radius: int, owner: _Owner
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields the near pairs in runs of descending sizes: a shift, positions `[h]`, and distances.

    Comparing a few codes past the end of their run is faster than skipping them; `owner.owns` filters them out.
    """
    ends = np.append(0, np.cumsum(sizes))
    for shift in range(1, int(sizes[0])):
        end = ends[np.searchsorted(-sizes, -shift)]  # of the runs longer than the shift
        ones, others = [word[shift:end] for word in words], [word[: end - shift] for word in words]
        distances = count_differing(ones, others)
        near = np.flatnonzero(distances <= radius)
        if len(near):
            differing = [one[near] ^ other[near] for one, other in zip(ones, others, strict=True)]
            near = near[owner.owns(differing)]
            yield shift, near, distances[near]


def batch_pairs(parts: Iterable[NearCodes], size: int) -> Iterator[NearCodes]:
    """Joins consecutive parts into batches of at least `size` pairs."""
    held: list[NearCodes] = []
    for part in parts:
        held.append(part)
        if sum(len(pairs.first) for pairs in held) >= size:
            yield _join(held)
            held = []
    if held:
        yield _join(held)


def _join(parts: Sequence[NearCodes]) -> NearCodes:
    return NearCodes(*map(np.concatenate, zip(*parts, strict=True)))


def _scan(index: HashIndex, table: np.ndarray, radius: int, limits: Limits) -> Iterator[NearCodes]:
    """Yields all near pairs by comparing all codes, in a compiled program."""
    size = limits.max_queries
    for start in range(0, len(table), size):
        first = start
        for hits in hits_by_scan(index, table[start : start + size], radius, size, limits):
            query, rank = (first + hits.queries).astype(np.int32), hits.ranks
            later = np.flatnonzero(rank > query)
            yield NearCodes(query[later], rank[later], hits.distances[later])
            first += len(hits.starts) - 1
