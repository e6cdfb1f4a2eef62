"""Choosing the quickest method by a cost model in nanoseconds, measured on a CPU with two cores and AVX-512.

All methods give identical results, so the model affects time only. On other machines the figures differ, but their
proportions change little.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import numpy as np

from jaxhash.index.address_table import Slice, longest_address
from jaxhash.index.hash_index import HashIndex, memory_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.kernels import minima_dtype

# Nanoseconds for each call, for any number of queries:
SCAN_CALL = 60_000.0  # to run the compiled scan
TABLE_CALL = 40_000.0  # to probe one table
FILL_CALL = 60_000.0  # to collect the matches
# Nanoseconds in a large batch:
SCAN_WORD = 0.02  # to compare one word of a code in the scan
SELECT = 700.0  # to select one of the nearest from the minima
SCAN_QUERY, PROBE_QUERY = 2_000.0, 500.0  # for each query, whatever it finds
SCAN_MATCH = 150.0  # to find one match among the codes of its group
PROBE_NEAR, PROBE_FAR = 1.0, 6.0  # to read one word of a bitmap that fits the caches, or does not
CANDIDATE = 60.0  # to compare one code of a bucket
BUILD = 60.0  # to sort one code into a table
BUILD_SORTED = 40.0  # to enter one code into the table of the first bits

NEAR_BYTES = 2**23  # the largest bitmap that fits the caches
# The bits of an address beyond what would number the codes, at least, even past LARGEST_TABLE: then the codes take far
# more memory than the table.
LEAST_SPARE_BITS = 2
LARGEST_TABLE = 28  # bits of an address, whose bitmap and directory take 64 MiB
MOST_PROBES = 2**16  # flip masks of one table

# Bytes for a batch of queries, beside the index and the results. Larger batches gain nothing on CPU.
QUERY_MEMORY = 2**26
MAX_QUERIES_AT_ONCE = 256


class Plan(NamedTuple):
    """The tables to probe and the radius for each, so that every match is found in at least one."""

    slices: tuple[Slice, ...]
    radii: tuple[int, ...]  # -1 for a table that is not probed
    cost: float  # nanoseconds for one query of a batch


class Sizes(NamedTuple):
    """The sizes that the cost of a search depends on."""

    num_items: int
    num_codes: int
    num_bits: int
    words: int  # compared in a scan, padding included


def sizes_of(index: HashIndex) -> Sizes:
    """Returns the sizes of an index; remembered, since fetching them from the device costs more than some searches."""

    def fetch() -> Sizes:
        num_items, num_codes = jax.device_get((index.num_items, index.num_codes))
        return Sizes(int(num_items), int(num_codes), index.num_bits, index.capacity * index.num_words)

    return memory_of(index).remember("sizes", fetch)


def ball_size(num_bits: int, radius: int) -> int:
    """The number of codes within a radius of a code, out of 2^num_bits."""
    return sum(math.comb(num_bits, flips) for flips in range(min(radius, num_bits) + 1))


def count_probes(size: int, radius: int) -> int:
    """Counts the words of a bitmap of 2^size addresses that one query reads; the five lowest bits share a word."""
    return ball_size(max(0, size - 5), radius)


def expected_hits(count: int, num_bits: int, radius: int) -> float:
    """The number of codes within a radius, of `count` evenly spread ones."""
    return count * ball_size(num_bits, radius) / 2**num_bits


def scan_cost(sizes: Sizes, found: float, each: float = SCAN_MATCH) -> float:
    """The nanoseconds of a scan for one query of a batch that finds `found` codes, at `each` a code."""
    per_word = SCAN_WORD if sizes.num_bits <= 480 else 2 * SCAN_WORD
    return SCAN_QUERY + sizes.words * per_word + found * each


def cut_slices(num_codes: int, num_bits: int, num_tables: int) -> tuple[Slice, ...]:
    """Divides all bits into about equal slices, and cuts off bits that would hardly make buckets smaller.

    Codes within a radius in a whole slice are so in its first bits, so cutting loses no match.
    """
    numbering = math.ceil(math.log2(max(2, num_codes)))
    longest = min(longest_address(num_codes), max(LARGEST_TABLE, numbering + LEAST_SPARE_BITS), 32)
    cuts = [num_bits * i // num_tables for i in range(num_tables + 1)]
    return tuple(Slice(first, min(end - first, longest)) for first, end in itertools.pairwise(cuts))


def divide_radius(radius: int, num_tables: int) -> tuple[int, ...]:
    """Returns the radius for each of m tables, so that no match is lost; -1 means that a table is not probed.

    Let radius = a m + c with c < m. A code that differed from the query in more than a bits of each of the first c + 1
    slices, and in at least a bits of each other slice, would be at a distance of more than the radius.
    """
    quotient, rest = divmod(radius, num_tables)
    return tuple(quotient if i <= rest else quotient - 1 for i in range(num_tables))


def plan_tables(num_codes: int, num_bits: int, radius: int, num_tables: int) -> Plan:
    """Makes the plan with `num_tables` tables, and its cost if codes spread evenly. One table is plain probing."""
    slices, radii = cut_slices(num_codes, num_bits, num_tables), divide_radius(radius, num_tables)
    cost = PROBE_QUERY
    for bits, reach in zip(slices, radii, strict=True):
        if reach < 0:
            continue
        probes = count_probes(bits.size, reach)
        if probes > MOST_PROBES:
            return Plan(slices, radii, math.inf)
        cost += probes * (PROBE_NEAR if 2**bits.size / 8 <= NEAR_BYTES else PROBE_FAR)
        cost += CANDIDATE * expected_hits(num_codes, bits.size, reach)
    return Plan(slices, radii, cost)


def plan_multi_index(num_codes: int, num_bits: int, radius: int, num_tables: int | None = None) -> Plan:
    """Makes the plan with `num_tables` tables, or the cheapest one with several."""
    choices = range(2, max(3, num_bits // 8 + 1)) if num_tables is None else (num_tables,)
    plans = [plan_tables(num_codes, num_bits, radius, min(choice, num_bits)) for choice in choices]
    return min(plans, key=lambda plan: plan.cost)


def plan_radius(index: HashIndex, num_queries: int, radius: int, method: str, num_tables: int | None) -> Plan | None:
    """Makes the plan for a radius search by a method; `None` means a scan."""
    sizes = sizes_of(index)
    plan, saved = _plan_radius(sizes, radius, method, num_tables)
    if plan is None:
        return None
    saved = num_queries * saved + SCAN_CALL - len(plan.slices) * TABLE_CALL
    return plan if method != "auto" or _worth_its_tables(index, plan, saved) else None


@functools.lru_cache(4096)
def _plan_radius(sizes: Sizes, radius: int, method: str, num_tables: int | None) -> tuple[Plan | None, float]:
    """Returns the cheapest plan that the method allows, if any, and the nanoseconds a query that it saves."""
    if method == "scan" or sizes.num_codes == 0:
        return None, 0.0
    plans = []
    if method != "multi-index":
        plans.append(plan_tables(sizes.num_codes, sizes.num_bits, radius, num_tables=1))
    if method != "probe":
        plans.append(plan_multi_index(sizes.num_codes, sizes.num_bits, radius, num_tables))
    plan = min(plans, key=lambda plan: plan.cost)
    saved = scan_cost(sizes, expected_hits(sizes.num_codes, sizes.num_bits, radius)) - plan.cost
    if plan.cost == math.inf or (method == "auto" and saved <= 0):
        return None, 0.0
    return plan, saved


def plan_widening(index: HashIndex, num_queries: int, k: int, method: str) -> tuple[Plan, ...]:
    """Makes plans for radius 0, 1, 2, ... that together cost no more than a scan; none if a scan should be quicker."""
    plans, saved, rounds = _plan_widening(sizes_of(index), k, method)
    saved = num_queries * saved + SCAN_CALL - rounds * (TABLE_CALL + FILL_CALL)
    return plans if method != "auto" or (plans and _worth_its_tables(index, plans[0], saved)) else ()


@functools.lru_cache(4096)
def _plan_widening(sizes: Sizes, k: int, method: str) -> tuple[tuple[Plan, ...], float, int]:
    """Returns the plans, the nanoseconds a query that they save, and how many are expected to find k items."""
    if sizes.num_codes == 0:
        return (), 0.0, 0
    plans: list[Plan] = []
    limit, spent, needed, rounds = scan_cost(sizes, k, SELECT), 0.0, math.inf, 0
    for radius in range(sizes.num_bits + 1):
        plan = plan_tables(sizes.num_codes, sizes.num_bits, radius, num_tables=1)
        spent += plan.cost
        if plan.cost == math.inf or (spent > limit and (method == "auto" or plans)):
            break
        plans.append(plan)
        if needed == math.inf and expected_hits(sizes.num_items, sizes.num_bits, radius) >= k:
            needed, rounds = spent, len(plans)
    if method == "auto" and needed == math.inf:
        return (), 0.0, 0
    return tuple(plans), limit - needed, rounds


def choose_slices(index: HashIndex, radius: int | None, k: int | None) -> tuple[Slice, ...]:
    """Returns the slices of the tables that "auto" would buy for searches by a radius and for the k nearest.

    There are none where a scan is estimated to be quicker even if tables cost nothing.
    """
    sizes, slices = sizes_of(index), set[Slice]()
    if radius is not None:
        plan, _ = _plan_radius(sizes, radius, "auto", None)
        slices.update(plan.slices if plan else ())
    if k is not None:
        plans, _, _ = _plan_widening(sizes, k, "auto")
        slices.update(plans[0].slices if plans else ())
    return tuple(sorted(slices))


def _worth_its_tables(index: HashIndex, plan: Plan, saved: float) -> bool:
    """Whether to use a plan that saves `saved` nanoseconds in this search; its tables are built if they are missing.

    Tables are built once the time lost without them would have paid for them (the ski rental problem: rent until the
    rent equals the price). That takes at most twice the time of the best choice in hindsight. The lost time of a plan
    pays only for its own tables, since other searches gain nothing from them.
    """
    if saved <= 0:
        return False
    memory = memory_of(index)
    missing = memory.missing(plan.slices)
    if not missing:
        return True
    price = sum(BUILD_SORTED if bits.first == 0 else BUILD for bits in plan.slices if bits in missing)
    return memory.add_lost_time(plan.slices, saved) > price * sizes_of(index).num_codes


def queries_at_once(index: AnyIndex, k: int, exponents: tuple[int, ...] = (0,)) -> int:
    """How many queries to scan together so that memory stays bounded, whatever n and k are; a power of two."""
    return _queries_at_once(index.codes.shape, index.num_shards if isinstance(index, ShardedIndex) else 0, k, exponents)


@functools.lru_cache(4096)
def _queries_at_once(shape: tuple[int, ...], num_shards: int, k: int, exponents: tuple[int, ...]) -> int:
    width, blocks, group_size, lanes = shape
    if num_shards:
        blocks //= num_shards
    gathered = 16 * k * num_shards
    minima = blocks * lanes * np.dtype(minima_dtype(width, exponents)).itemsize
    chosen = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    affordable = max(1, QUERY_MEMORY // (minima + chosen + gathered))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))
