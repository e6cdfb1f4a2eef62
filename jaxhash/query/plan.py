"""How to answer a search: what each method should take, and when tables are worth building.

Everything here is a pure function of sizes; no clock is read. All methods give identical results, so estimates need
only be right within a factor of two, and constants are few and coarse. `Limits` holds all of them.

Tables come by one rule: they are built once the scans that they would have spared have cost as much as building them.
So no sequence of searches takes more than about twice the time of the best choice in hindsight (the ski rental problem:
rent until the rent equals the price).
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
    """Every threshold of the searches. Times are nanoseconds, measured on two cores of AMD Zen 3 and Zen 4.

    Functions that choose or batch take `limits`, by default those of this machine, so that tests can pass their own.
    """

    # The compiled scan. An empty program takes 10 to 40 us; one that wakes threads and is waited for, 80 to 250:
    program: float = 150_000
    compile: float = 1e8  # the first scan of an index, 0.1 to 0.5 s
    read_word: float = 0.2  # for each word of the codes, which all queries of a batch share
    compare_code: float = 0.03  # for each code and query
    compare_word: float = 0.11  # for each word and query; a fifth of it where vectors count bits
    select_query: float = 3_000
    select_result: float = 900  # by `top_k`, which takes longer than the comparison where k is large
    unblocked_groups: int = 2048  # up to so many, selecting among all is quicker than selecting blocks first
    kept_work: int = 2**22  # words compared from which on minima are kept in memory
    fill_match: float = 170  # a match of a radius search among the codes of its group
    # Numpy on the host.
    numpy: float = 15_000  # some twenty calls
    numpy_word: float = 1.1  # to compare a word of 64 bits, and to select
    numpy_result: float = 100
    group_query: float = 14_000  # to bound the distance of the k-th code by the minima of groups
    group_result: float = 150  # to compare and sort the codes of a group
    group_queries: int = 32  # for fewer queries, the two threads that select disturb each other
    # Address tables.
    probe_table: float = 120_000  # a hundred calls of numpy for one table
    probe_one: float = 20_000  # the same for a query that meets few codes, in plain Python
    candidate_one: float = 2_500
    few_candidates: int = 160  # of such a query
    read_near: float = 5.0  # to read and test a word of a bitmap that fits the caches
    read_far: float = 12.0
    near_bytes: int = 2**23  # the largest such bitmap
    candidate: float = 30  # to compare a code of a bucket
    build: float = 60  # to sort a code into a table
    build_first: float = 20  # to enter a code into the table of the first bits, whose addresses are sorted already
    spare_bits: int = 6  # the most bits of an address beyond those that number the codes: at 16 to 32 bytes a code
    largest_table: int = 28  # bits of an address, with 64 MiB of bitmap and directory, unless the codes take far more:
    least_spare_bits: int = 2
    max_probes: int = 2**16  # of one table
    # Sizes of batches, which bound the memory beside the index and the results. Larger ones gain nothing.
    max_queries: int = 256
    query_memory: int = 2**26  # bytes of a compiled program
    two_threads: int = 2**30  # words compared by two threads together, at least; a result counts as 1 / 8 word a code
    kept_codes: int = 2**24  # the most codes that are kept once more for numpy
    compared: int = 2**19  # codes that numpy compares at a time, few enough for the caches
    groups: int = 2**17  # compared at a time; where ties make it more, the compiled scan selects
    candidates: int = 2**21  # compared at a time, in 100 MiB
    probes: int = 2**18  # words of bitmaps read at a time
    max_hit_queries: int = 2**12  # queries whose hits are sorted together, less than 2^13
    rooms: tuple[int, ...] = (2**8, 2**12)  # for the candidates of a query that an accelerator probes
    row_memory: int = 2**22  # bytes of vectors to rank: 12 ms so, 48 ms with 38 MiB at a time
    listed: int = 2**21  # ids or pairs written at a time
    bag_codes: int = 256  # of a bag, searched at a time
    bag_ids: int = 2**18  # up to which items are numbered by their ids
    # Pairs of a collection with itself.
    sort_code: float = 120  # by the bits of some slices
    compare_pair: float = 3  # by a word of 64 bits
    worth_sampling: float = 2e7  # for less time, no cheaper way is looked for
    sample: int = 2**13  # codes that the number of comparisons is estimated from
    max_sorts: int = 128
    run_codes: int = 2**15  # compared together, few enough for the caches
    # Masks.
    few: int = 64  # where one item in so many is allowed, or fewer, their codes are gathered
    worth_gathering: int = 2**16  # items, at least


def _counts_in_vectors() -> bool:
    """Whether the processor counts the bits of vectors (AVX-512 VPOPCNTDQ); false where that can't be told."""
    try:
        return "avx512_vpopcntdq" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False


LIMITS = Limits(compare_word=0.02) if _counts_in_vectors() else Limits()

# The methods that compile a scan on their first call.
COMPILED_SCANS = ("scan", "groups")


class Plan(NamedTuple):
    """The tables to probe and the radius for each, so that every match is found in at least one."""

    slices: tuple[Slice, ...]
    radii: tuple[int, ...]  # -1 for a table that is not probed
    cost: float  # for one query
    candidates: float = 0.0  # codes that it compares


class Option(NamedTuple):
    """A method, and what it should take for a search."""

    method: str
    cost: float
    plans: tuple[Plan, ...] = ()  # what it probes: for the radius, or for radius 0, 1, 2, ...
    room: int = 0  # for the candidates of a query, on an accelerator

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Those of the tables it needs; all its plans have the same."""
        return self.plans[0].slices if self.plans else ()


class Decision(NamedTuple):
    """The options to try in turn, and the entries that change in the account of scans that tables would have spared."""

    options: tuple[Option, ...]
    spent: dict[tuple[Slice, ...], float]  # as for `decide`, this search included


def count_probes(size: int, radius: int) -> int:
    """Counts the words of a bitmap of 2^size addresses that one query reads; the five lowest bits share a word."""
    return ball_size(max(0, size - 5), radius)


def expected_hits(count: int, num_bits: int, radius: int) -> float:
    """The number of codes within a radius, of `count` evenly spread ones."""
    return count * ball_size(num_bits, radius) / 2**num_bits


def cut_slices(num_codes: int, num_bits: int, num_tables: int, limits: Limits = LIMITS) -> tuple[Slice, ...]:
    """Divides all bits into about equal slices, and cuts off bits that would hardly make buckets smaller.

    Codes within a radius in a whole slice are so in its first bits, so cutting loses no match.
    """
    numbering = math.ceil(math.log2(max(2, num_codes)))
    longest = min(max(8, numbering + limits.spare_bits), max(limits.largest_table, numbering + limits.least_spare_bits))
    cuts = [num_bits * i // num_tables for i in range(num_tables + 1)]
    return tuple(Slice(first, min(end - first, longest, 32)) for first, end in itertools.pairwise(cuts))


def plan_tables(sizes: Sizes, radius: int, num_tables: int, limits: Limits = LIMITS) -> Plan:
    """Plans to probe so many tables; one is plain probing.

    The cost holds for codes that spread evenly, or are as crowded as building the tables has shown, and for queries
    that lie where the codes do: each meets the bucket of a code, besides what is near it by chance.
    """
    slices, radii = cut_slices(sizes.num_codes, sizes.num_bits, num_tables, limits), divide_radius(radius, num_tables)
    crowding, cost, candidates = dict(sizes.crowding), 0.0, 0.0
    usual = max(crowding.values(), default=1.0)  # codes that are crowded in some bits are so in others
    for bits, reach in zip(slices, radii, strict=True):
        if reach < 0:
            continue
        probes = count_probes(bits.size, reach)
        if probes > limits.max_probes:
            return Plan(slices, radii, math.inf)
        cost += probes * (limits.read_near if 2**bits.size / 8 <= limits.near_bytes else limits.read_far)
        candidates += (1 + expected_hits(sizes.num_codes, bits.size, reach)) * max(1.0, crowding.get(bits, usual))
    return Plan(slices, radii, cost + limits.candidate * candidates, candidates)


def plan_multi_index(sizes: Sizes, radius: int, num_tables: int | None = None, limits: Limits = LIMITS) -> Plan:
    """Plans to probe `num_tables` tables, or the number of them, at least 2, that costs least."""
    choices = range(2, max(3, sizes.num_bits // 8 + 1)) if num_tables is None else (num_tables,)
    plans = [plan_tables(sizes, radius, min(choice, sizes.num_bits), limits) for choice in choices]
    return min(plans, key=lambda plan: plan.cost)


def _plan_widening(
    sizes: Sizes, among: int, limit: float, always: bool, limits: Limits
) -> tuple[tuple[Plan, ...], int]:
    """Plans for radius 0, 1, 2, ... that together cost a query no more than a limit, or a first one `always`.

    Returns:
        The plans, and how many of them are expected to find so many items: 0 if all together are not.
    """
    plans: list[Plan] = []
    spent, rounds = 0.0, 0
    for radius in range(sizes.num_bits + 1 if sizes.num_codes else 0):
        plan = plan_tables(sizes, radius, 1, limits)
        spent += plan.cost
        if plan.cost == math.inf or (spent > limit and (plans or not always)):
            break
        plans.append(plan)
        if not rounds and expected_hits(sizes.num_items, sizes.num_bits, radius) >= among:
            rounds = len(plans)
    return tuple(plans), rounds


def scan_cost(sizes: Sizes, num_queries: int, limits: Limits, num_planes: int = 0) -> float:
    """To compare all codes with queries in a compiled program. Codes of 512 bits and more take twice as long a word."""
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
    among: int,
    num_planes: int = 0,
    filtered: bool = False,
    method: str = "auto",
    limits: Limits = LIMITS,
) -> tuple[Option, ...]:
    """Orders the methods for the k nearest, the cheapest first. The last one answers every query.

    `among` items, allowed or not, are expected to be as near as the k-th allowed one. Weights have `num_planes` bit
    planes; 0 stands for no weights. `filtered` tells whether there is a mask.
    """
    compare = scan_cost(sizes, num_queries, limits, num_planes)
    scan = compare + num_queries * (limits.select_query + k * limits.select_result)
    options = [Option("scan", scan)]
    if sizes.on_host and not filtered and num_queries and k <= sizes.num_codes <= limits.kept_codes:
        found = num_queries * k * limits.numpy_result
        options.append(Option("numpy", _numpy_cost(sizes, num_queries, limits, num_planes) + found))
        if not num_planes and num_queries >= limits.group_queries:
            options.append(Option("groups", compare + num_queries * (limits.group_query + k * limits.group_result)))
    if method != "scan" and not num_planes:
        plans, rounds = _plan_widening(sizes, among, scan / max(1, num_queries), method == "probe", limits)
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
    """Orders the methods for all items within a radius, the cheapest first. The last one answers every query."""
    found = num_queries * expected_hits(sizes.num_codes, sizes.num_bits, radius)
    options = [Option("scan", scan_cost(sizes, num_queries, limits) + limits.program + found * limits.fill_match)]
    if sizes.on_host and sizes.num_codes <= limits.kept_codes:
        options.append(Option("numpy", _numpy_cost(sizes, num_queries, limits) + found * limits.candidate))
    plans = []
    if method in ("auto", "probe") and sizes.num_codes:
        plans.append(plan_tables(sizes, radius, 1, limits))
    if method in ("auto", "multi_index") and sizes.num_codes:
        plans.append(plan_multi_index(sizes, radius, num_tables, limits))
    for plan in plans:
        cost = len(plan.slices) * limits.probe_table + num_queries * plan.cost
        rooms = () if sizes.on_host or len(plan.slices) * (sizes.capacity + 1) >= 2**31 else limits.rooms
        if cost < math.inf:
            cost = cost if method == "auto" else 0.0
            options += [Option("device", cost, (plan,), room) for room in rooms]
            if num_queries == 1 and plan.candidates <= limits.few_candidates:
                one = len(plan.slices) * limits.probe_one + plan.candidates * limits.candidate_one
                options.append(Option("probe_one", one if method == "auto" else 0.0, (plan,)))
            options.append(Option("probe", cost, (plan,)))
    return _order(options)


def _order(options: list[Option]) -> tuple[Option, ...]:
    """Sorts options, up to the first that answers every query."""
    ordered = sorted(options, key=lambda option: option.cost)
    last = next(place for place, option in enumerate(ordered) if option.method in ("scan", "numpy"))
    return tuple(ordered[: last + 1])


def decide(
    options: tuple[Option, ...],
    tables: Collection[Slice],
    spent: Mapping[tuple[Slice, ...], float],
    num_codes: int,
    limits: Limits = LIMITS,
) -> Decision:
    """Decides whether the tables that the best option lacks are built, or another option answers meanwhile.

    `tables` are the slices whose tables there are. `spent` is what scans have cost that tables would have spared, by
    their slices; by `()`, how much of the time to compile the first scan is counted, since it counts once for all.
    """
    best = options[0]
    missing = [bits for bits in best.slices if bits not in tables]
    if not missing or best.cost == 0:  # a method that was named
        return Decision(options, {(): limits.compile} if best.method in COMPILED_SCANS else {})
    ready = tuple(option for option in options if all(bits in tables for bits in option.slices))
    price = num_codes * sum(limits.build if bits.first else limits.build_first for bits in missing)
    counted = spent.get((), 0.0)
    compile_cost = limits.compile - counted if ready[0].method in COMPILED_SCANS else 0.0
    total = spent.get(best.slices, 0.0) + compile_cost + ready[0].cost
    if total < price:
        return Decision(ready, {best.slices: total, (): counted + compile_cost})
    return Decision(options, {(): counted + min(compile_cost, price)})


def affordable(query_bytes: int, limits: Limits = LIMITS) -> int:
    """How many queries a program takes at a time if each needs so many bytes: a power of two, at most `max_queries`."""
    return min(limits.max_queries, 1 << (max(1, limits.query_memory // query_bytes).bit_length() - 1))


def compared_at_once(sizes: Sizes, limits: Limits = LIMITS) -> int:
    """How many queries numpy compares with all codes at a time."""
    return max(1, min(limits.max_hit_queries, limits.compared // max(1, sizes.num_codes)))


def probed_at_once(plan: Plan, limits: Limits = LIMITS) -> int:
    """How many queries to probe together by a plan. In two threads, halves of them would take longer."""
    probes = sum(count_probes(bits.size, reach) for bits, reach in zip(plan.slices, plan.radii, strict=True))
    return max(1, min(limits.max_hit_queries, limits.probes // probes))
