"""Method selection: the estimated cost of each method, and when tables are worth building.

Everything here is a pure function of sizes; no clock is read. All methods give identical results, so a factor of two in
the estimates does no harm, and the constants are few and coarse. `Limits` holds all of them.

Tables are built when the scans that they would have saved have cost as much as building them. So no sequence of
searches takes more than about twice the time of the best choice in hindsight (the ski rental problem: rent until the
rent equals the price).
"""

import functools
import itertools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxhash.index.address_table import Slice, divide_radius
from jaxhash.index.density import ball_size
from jaxhash.index.hash_index import Sizes


class Limits(NamedTuple):
    """Costs and thresholds of the searches. Times are nanoseconds on two cores of AMD Zen 3 and 4 and an Intel Xeon.

    Functions that choose or batch take `limits`, by default `LIMITS` of this machine; tests pass their own.
    """

    # The compiled scan. An empty program takes 10 to 40 us; waking threads and waiting for them, 80 to 250:
    program: float = 150_000
    compile: float = 1e8  # the first scan of an index, 0.1 to 0.5 s
    read_word: float = 0.2  # per word of the codes, shared by all queries of a batch
    compare_code: float = 0.03  # per code and query
    compare_word: float = 0.11  # per word and query; a fifth with AVX-512 VPOPCNTDQ
    select_query: float = 3_000
    select_result: float = 900  # by `top_k`, which takes longer than the comparison for large k
    unblocked_groups: int = 2048  # maximum for selecting among all groups; above, selecting blocks first is faster
    kept_work: int = 2**22  # minimum words compared for keeping minima in memory
    fill_match: float = 170  # a match of a radius search among the codes of its group
    # Numpy on the host.
    numpy: float = 15_000  # about twenty calls
    numpy_word: float = 1.1  # to compare a 64-bit word and select
    numpy_result: float = 100
    group_query: float = 14_000  # to bound the distance of the k-th code by group minima
    group_result: float = 150  # to compare and sort the codes of a group
    group_queries: int = 32  # minimum; with fewer, the two selecting threads slow each other down
    # Address tables.
    probe_table: float = 120_000  # about a hundred numpy calls per table
    probe_one: float = 20_000  # the same in plain Python, for a query with few candidates
    candidate_one: float = 2_500
    few_candidates: int = 160  # maximum for such a query
    read_near: float = 5.0  # to read and test a word of a bitmap that fits the caches
    read_far: float = 12.0
    near_bytes: int = 2**23  # maximum size of such a bitmap
    candidate: float = 30  # to compare a code of a bucket
    build: float = 60  # to sort a code into a table
    build_first: float = 20  # to add a code to the table of the first bits, where addresses are sorted already
    max_spare_bits: int = 6  # address bits above log2(num_codes): 16 to 32 bytes per code
    max_table_bits: int = 28  # 64 MiB of bitmap and directory; raised to log2(num_codes) + min_spare_bits
    min_spare_bits: int = 2
    max_probes: int = 2**16  # of one table
    # Batch sizes bound the memory beside the index and the results. Larger batches gain nothing.
    max_queries: int = 256
    query_memory: int = 2**26  # bytes of a compiled program
    two_threads: int = 2**30  # minimum words compared for a second thread; a result counts as 1 / 8 word per code
    kept_codes: int = 2**24  # maximum codes copied for numpy
    compared: int = 2**19  # codes per numpy comparison, so that they fit the caches
    groups: int = 2**17  # maximum per comparison; with more, because of ties, the compiled scan selects
    candidates: int = 2**21  # per comparison, in 100 MiB
    probes: int = 2**18  # bitmap words per read
    max_hit_queries: int = 2**12  # queries with hits sorted together, below 2^13
    slot_counts: tuple[int, ...] = (2**8, 2**12)  # candidate slots per query for probing on an accelerator
    row_memory: int = 2**22  # bytes of vectors ranked at a time: 12 ms, against 48 ms with 38 MiB
    listed: int = 2**21  # ids or pairs written at a time
    bag_codes: int = 256  # codes of a bag per search
    bag_ids: int = 2**18  # bound on ids for numbering items by id
    # Pairs of a collection with itself.
    sort_code: float = 120  # by the bits of several slices
    compare_pair: float = 3  # by a 64-bit word
    min_sampled_cost: float = 2e7  # minimum cost for comparing alternatives
    sample: int = 2**13  # codes for estimating the number of comparisons
    max_sorts: int = 128
    run_codes: int = 2**15  # compared together, so that they fit the caches
    # Masks.
    gathered_ratio: int = 64  # codes are gathered if at most one item in this many is allowed
    min_gathered_items: int = 2**16  # minimum items of an index for gathering


def _counts_in_vectors() -> bool:
    """Returns whether the CPU has AVX-512 VPOPCNTDQ; false if unknown."""
    try:
        return "avx512_vpopcntdq" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False


LIMITS = Limits(compare_word=0.02) if _counts_in_vectors() else Limits()

# Methods that compile a scan on their first call.
COMPILED_SCANS = ("scan", "groups")


class Plan(NamedTuple):
    """The tables to probe and a radius for each; every match is found in at least one table."""

    slices: tuple[Slice, ...]
    radii: tuple[int, ...]  # -1 for a table that is not probed
    cost: float  # per query
    candidates: float = 0.0  # codes compared per query


class Option(NamedTuple):
    """A method and its estimated cost for a search."""

    method: str
    cost: float
    plans: tuple[Plan, ...] = ()  # one for the radius, or one each for radius 0, 1, 2, ...
    num_slots: int = 0  # candidate slots per query, on an accelerator

    @property
    def slices(self) -> tuple[Slice, ...]:
        """The slices of the required tables, the same for all plans."""
        return self.plans[0].slices if self.plans else ()


class Decision(NamedTuple):
    """The options to try in turn, and updates of the cost of scans that tables would have saved."""

    options: tuple[Option, ...]
    spent: dict[tuple[Slice, ...], float]  # as for `decide`, including this search


def count_probes(size: int, radius: int) -> int:
    """Counts the words that a query reads in a bitmap of 2^size addresses; the five lowest bits share a word."""
    return ball_size(max(0, size - 5), radius)


def expected_hits(count: int, num_bits: int, radius: int) -> float:
    """Returns the expected number of codes within a radius among `count` evenly distributed ones."""
    return count * ball_size(num_bits, radius) / 2**num_bits


def cut_slices(num_codes: int, num_bits: int, num_tables: int, limits: Limits = LIMITS) -> tuple[Slice, ...]:
    """Divides all bits into about equal slices and drops bits that would hardly make buckets smaller.

    Codes within a radius in a whole slice are also within it in the slice's first bits, so no match is lost.
    """
    numbering = math.ceil(math.log2(max(2, num_codes)))
    max_size = max(limits.max_table_bits, numbering + limits.min_spare_bits)
    longest = min(max(8, numbering + limits.max_spare_bits), max_size)
    cuts = [num_bits * i // num_tables for i in range(num_tables + 1)]
    return tuple(Slice(first, min(end - first, longest, 32)) for first, end in itertools.pairwise(cuts))


def plan_tables(sizes: Sizes, radius: int, num_tables: int, limits: Limits = LIMITS) -> Plan:
    """Plans to probe `num_tables` tables; one is plain probing.

    The cost assumes codes that are evenly distributed, or as crowded as the tables built so far have shown, and queries
    distributed like the codes: each query hits the bucket of one code, besides the codes near it by chance.
    """
    slices, radii = cut_slices(sizes.num_codes, sizes.num_bits, num_tables, limits), divide_radius(radius, num_tables)
    crowding, cost, candidates = dict(sizes.crowding), 0.0, 0.0
    usual = max(crowding.values(), default=1.0)  # codes crowded in some bits are crowded in others
    for bits, table_radius in zip(slices, radii, strict=True):
        if table_radius < 0:
            continue
        probes = count_probes(bits.size, table_radius)
        if probes > limits.max_probes:
            return Plan(slices, radii, math.inf)
        cost += probes * (limits.read_near if 2**bits.size / 8 <= limits.near_bytes else limits.read_far)
        chance_hits = expected_hits(sizes.num_codes, bits.size, table_radius)
        candidates += (1 + chance_hits) * max(1.0, crowding.get(bits, usual))
    return Plan(slices, radii, cost + limits.candidate * candidates, candidates)


def plan_multi_index(sizes: Sizes, radius: int, num_tables: int | None = None, limits: Limits = LIMITS) -> Plan:
    """Plans to probe `num_tables` tables, by default the cheapest number, at least 2."""
    choices = range(2, max(3, sizes.num_bits // 8 + 1)) if num_tables is None else (num_tables,)
    plans = [plan_tables(sizes, radius, min(choice, sizes.num_bits), limits) for choice in choices]
    return min(plans, key=lambda plan: plan.cost)


def _plan_widening(
    sizes: Sizes, unfiltered_k: int, limit: float, always: bool, limits: Limits
) -> tuple[tuple[Plan, ...], int]:
    """Plans radius 0, 1, 2, ... within a total cost of `limit` per query; if `always`, at least the first one.

    Returns:
        The plans, and how many of them are needed to find the expected `unfiltered_k` items; 0 if all are too few.
    """
    plans: list[Plan] = []
    spent, rounds = 0.0, 0
    for radius in range(sizes.num_bits + 1 if sizes.num_codes else 0):
        plan = plan_tables(sizes, radius, 1, limits)
        spent += plan.cost
        if plan.cost == math.inf or (spent > limit and (plans or not always)):
            break
        plans.append(plan)
        if not rounds and expected_hits(sizes.num_items, sizes.num_bits, radius) >= unfiltered_k:
            rounds = len(plans)
    return tuple(plans), rounds


def scan_cost(sizes: Sizes, num_queries: int, limits: Limits, num_planes: int = 0) -> float:
    """Estimates a compiled scan of all codes. With 512 bits or more, a word takes twice as long."""
    words = -(-sizes.num_bits // 32)
    compare = limits.compare_word * max(1, num_planes) * (1 if sizes.num_bits <= 480 else 2)
    query = limits.compare_code + words * compare
    return limits.program + sizes.capacity * (words * limits.read_word + num_queries * query)


def _numpy_cost(sizes: Sizes, num_queries: int, limits: Limits, num_planes: int = 0) -> float:
    words = sizes.num_codes * -(-sizes.num_bits // 64)
    return limits.numpy + num_queries * max(1, num_planes) * words * limits.numpy_word


@functools.lru_cache(4096)
def order_nearest(
    sizes: Sizes,
    num_queries: int,
    k: int,
    unfiltered_k: int,
    num_planes: int = 0,
    filtered: bool = False,
    method: str = "auto",
    limits: Limits = LIMITS,
) -> tuple[Option, ...]:
    """Orders the methods for the k nearest items by cost. The last one answers every query.

    `unfiltered_k` is the number of items, allowed or not, expected within the distance of the k-th allowed one.
    `num_planes` is the number of bit planes of the weights, 0 without weights. `filtered` states whether there is a
    mask.
    """
    compare = scan_cost(sizes, num_queries, limits, num_planes)
    scan = compare + num_queries * (limits.select_query + k * limits.select_result)
    options = [Option("scan", scan)]
    if sizes.on_host and not filtered and num_queries and k <= sizes.num_codes <= limits.kept_codes:
        select = num_queries * k * limits.numpy_result
        options.append(Option("numpy", _numpy_cost(sizes, num_queries, limits, num_planes) + select))
        if not num_planes and num_queries >= limits.group_queries:
            options.append(Option("groups", compare + num_queries * (limits.group_query + k * limits.group_result)))
    if method != "scan" and not num_planes:
        plans, rounds = _plan_widening(sizes, unfiltered_k, scan / max(1, num_queries), method == "probe", limits)
        cost = sum(limits.probe_table + num_queries * plan.cost for plan in plans[:rounds]) if rounds else math.inf
        options += [Option("probe", 0.0 if method == "probe" else cost, plans)] if plans else []
    return _order(options)


@functools.lru_cache(4096)
def order_radius(
    sizes: Sizes,
    num_queries: int,
    radius: int,
    method: str = "auto",
    num_tables: int | None = None,
    limits: Limits = LIMITS,
) -> tuple[Option, ...]:
    """Orders the methods for all items within a radius by cost. The last one answers every query."""
    hits = num_queries * expected_hits(sizes.num_codes, sizes.num_bits, radius)
    options = [Option("scan", scan_cost(sizes, num_queries, limits) + limits.program + hits * limits.fill_match)]
    if sizes.on_host and sizes.num_codes <= limits.kept_codes:
        options.append(Option("numpy", _numpy_cost(sizes, num_queries, limits) + hits * limits.candidate))
    plans = []
    if method in ("auto", "probe") and sizes.num_codes:
        plans.append(plan_tables(sizes, radius, 1, limits))
    if method in ("auto", "multi_index") and sizes.num_codes:
        plans.append(plan_multi_index(sizes, radius, num_tables, limits))
    for plan in plans:
        cost = len(plan.slices) * limits.probe_table + num_queries * plan.cost
        slot_counts = () if sizes.on_host or len(plan.slices) * (sizes.capacity + 1) >= 2**31 else limits.slot_counts
        if cost < math.inf:
            cost = cost if method == "auto" else 0.0
            options += [Option("device", cost, (plan,), num_slots) for num_slots in slot_counts]
            if num_queries == 1 and plan.candidates <= limits.few_candidates:
                one = len(plan.slices) * limits.probe_one + plan.candidates * limits.candidate_one
                options.append(Option("probe_one", one if method == "auto" else 0.0, (plan,)))
            options.append(Option("probe", cost, (plan,)))
    return _order(options)


def _order(options: list[Option]) -> tuple[Option, ...]:
    """Sorts options by cost, up to the first that answers every query."""
    ordered = sorted(options, key=lambda option: option.cost)
    last = next(i for i, option in enumerate(ordered) if option.method in ("scan", "numpy"))
    return tuple(ordered[: last + 1])


def decide(
    options: tuple[Option, ...],
    tables: Collection[Slice],
    spent: Mapping[tuple[Slice, ...], float],
    num_codes: int,
    limits: Limits = LIMITS,
) -> Decision:
    """Decides whether to build the tables that the best option lacks, or to use another option for now.

    `tables` are the slices with existing tables. `spent` maps the slices of missing tables to the cost of the scans
    that these would have saved. `()` maps to the share of the first compilation already charged, to charge it once.
    """
    best = options[0]
    missing = [bits for bits in best.slices if bits not in tables]
    if not missing or best.cost == 0:  # a cost of 0 marks a method requested by name
        return Decision(options, {(): limits.compile} if best.method in COMPILED_SCANS else {})
    ready = tuple(option for option in options if all(bits in tables for bits in option.slices))
    price = num_codes * sum(limits.build if bits.first else limits.build_first for bits in missing)
    counted = spent.get((), 0.0)
    compile_cost = limits.compile - counted if ready[0].method in COMPILED_SCANS else 0.0
    total = spent.get(best.slices, 0.0) + compile_cost + ready[0].cost
    if total < price:
        return Decision(ready, {best.slices: total, (): counted + compile_cost})
    return Decision(options, {(): counted + min(compile_cost, price)})


def max_batch_size(query_bytes: int, limits: Limits = LIMITS) -> int:
    """Returns the batch size for queries of `query_bytes` each: a power of two, at most `max_queries`."""
    return min(limits.max_queries, 1 << (max(1, limits.query_memory // query_bytes).bit_length() - 1))


def numpy_batch_size(sizes: Sizes, limits: Limits = LIMITS) -> int:
    """Returns the number of queries per numpy comparison with all codes."""
    return max(1, min(limits.max_hit_queries, limits.compared // max(1, sizes.num_codes)))


def probe_batch_size(plan: Plan, limits: Limits = LIMITS) -> int:
    """Returns the number of queries probed together by a plan. Halving it for a second thread is slower."""
    probes = sum(count_probes(bits.size, radius) for bits, radius in zip(plan.slices, plan.radii, strict=True))
    return max(1, min(limits.max_hit_queries, limits.probes // probes))
