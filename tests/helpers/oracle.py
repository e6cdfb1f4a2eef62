"""The exact slow forms that everything else is compared with: numpy on bits and on all codes."""

import numpy as np

NO_ID, NO_DISTANCE = -1, 2**31 - 1


def pack(bits, dtype=np.uint32):
    """Bits `[n, b]` to codes, or to bytes, by way of strings of digits."""
    bits, size = np.asarray(bits).astype(int), 8 * np.dtype(dtype).itemsize
    width = -(-bits.shape[1] // size)
    rows = ["".join(map(str, row)).ljust(size * width, "0") for row in bits]
    words = [[int(row[size * i : size * (i + 1)], 2) for i in range(width)] for row in rows]
    return np.array(words, dtype).reshape(len(bits), width)


def ranking(codes, ids, query):
    """All distances and ids in the order of (distance, code, id)."""
    rows = [
        (int(np.bitwise_count(code ^ query).sum()), tuple(code), int(i)) for code, i in zip(codes, ids, strict=True)
    ]
    ordered = sorted(rows)
    return np.array([row[0] for row in ordered], np.int32), np.array([row[2] for row in ordered], np.int32)


def nearest(codes, ids, queries, k):
    """Distances and ids `[q, k]`."""
    distances = np.full((len(queries), k), NO_DISTANCE)
    found = np.full((len(queries), k), NO_ID)
    for row, query in enumerate(queries):
        by_distance, by_id = ranking(codes, ids, query)
        count = min(k, len(codes))
        distances[row, :count], found[row, :count] = by_distance[:count], by_id[:count]
    return distances, found


def unpack(codes):
    """Codes to bits `[n, 32 w]`."""
    return np.unpackbits(np.ascontiguousarray(codes, ">u4").view(np.uint8), axis=1)


def nearest_weighted(codes, ids, queries, weights, k):
    """Weighted distances and ids `[q, k]`."""
    bits, wanted = unpack(codes)[:, : weights.shape[1]], unpack(queries)[:, : weights.shape[1]]
    distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
    found = np.full((len(queries), k), NO_ID, np.int32)
    for row, (query, weight) in enumerate(zip(wanted, weights, strict=True)):
        totals = (bits != query) @ weight
        order = sorted(range(len(codes)), key=lambda i: (totals[i], tuple(codes[i]), ids[i]))[:k]
        distances[row, : len(order)], found[row, : len(order)] = totals[order], ids[order]
    return distances, found


def within(codes, ids, queries, radius):
    """For each query, distances and ids of all matches."""
    ranked = [ranking(codes, ids, query) for query in queries]
    return [(distances[distances <= radius], found[distances <= radius]) for distances, found in ranked]


def clustered(rng, n, num_bits, clusters=5):
    """Bits `[n, b]` near a few centers, with exact copies among them."""
    centers = rng.random((clusters, num_bits)) < 0.5
    bits = centers[rng.integers(0, clusters, n)]
    flips = rng.random((n, num_bits)) < 1.5 / num_bits
    return bits ^ flips
