"""Recall of codes of float vectors: `python tests/benchmarks/embeddings.py VECTORS.npy [--bits 64 128 256] ...`

Prints a Markdown table: the recall of the k nearest vectors by cosine in the k nearest codes, in the k best by cosine
of a shortlist of codes, and in the k nearest by weighted distance. The last vectors of the file are the queries, the
others are for training and the database. `sentences.py` makes such a file. Figures are means and standard deviations
over the seeds; FAISS draws its own random rotation, so it is run once. Times are from the first seed and include
compilation.
"""

import argparse
import importlib.util
import time

import baselines
import numpy as np
import optax
from flax import nnx
from quality import cell, print_row

import jaxhash as jh

OBJECTIVES = ("reconstruct", "retrieve", "keep_neighbors", "group_by_kind")
START = "start in closed form"  # ITQ, with weights
FAISS_LSH = "FAISS IndexLSH"
FAISS_RABITQ = "FAISS IndexRaBitQ"
BASELINES = {"LSH": baselines.lsh, "ITQ": baselines.itq}
SIGNS = "signs of the values"
METHODS = [SIGNS, FAISS_LSH, FAISS_RABITQ, *BASELINES, START, *OBJECTIVES]
UNSEEDED = {SIGNS, FAISS_LSH, FAISS_RABITQ}
WHOLE = {SIGNS, FAISS_RABITQ}  # as many bits as a vector has values


def unit(vectors):
    """Normalizes vectors to unit length: distance then orders like cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def nearest(database, queries, k, among=None):
    """Finds the k vectors of largest product with each query, in descending order: int `[q, k]`.

    Args:
        among: int `[q, s]`, a shortlist for each query; by default all.
    """
    if among is None:
        products = queries @ database.T
        among = np.argpartition(-products, k - 1, axis=1)[:, :k]
    products = np.einsum("qd,qsd->qs", queries, database[among])
    return np.take_along_axis(among, np.argsort(-products, axis=1, kind="stable")[:, :k], axis=1)


def learned(objective, database, num_bits, seed, options):
    """Trains a model, or only initializes it in closed form."""
    model = jh.Autoencoder(
        database.shape[1], num_bits, options.hidden_dims, output_activation="linear", rngs=nnx.Rngs(seed)
    )
    if objective == START:
        still = optax.sgd(0.0)
        return jh.fit(model, database, epochs=1, seed=seed, objective="keep_neighbors", optimizer=still)[0]
    return jh.fit(model, database, epochs=options.epochs, seed=seed, objective=objective)[0]


def faiss_lsh(database, num_bits):
    """Returns an encoder by FAISS's LSH, with random rotation and default settings."""
    import faiss

    index = faiss.IndexLSH(database.shape[1], num_bits)
    index.train(database)
    return lambda vectors: jh.codes_from_bytes(index.sa_encode(vectors), num_bits)


def faiss_rabitq(database, queries, count):
    """Searches by FAISS with one bit per value after a random rotation; also returns the bytes of a code."""
    import faiss

    dims = database.shape[1]
    codes = faiss.IndexRaBitQ(dims, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexPreTransform(faiss.RandomRotationMatrix(dims, dims), codes)
    index.train(database)
    index.add(database)
    return index.search(queries, count)[1], codes.code_size


def learn(method, database, num_bits, seed, options):
    if method == SIGNS:
        return lambda vectors: jh.pack_bits(vectors > 0)
    if method == FAISS_LSH:
        return faiss_lsh(database, num_bits)
    if method in BASELINES:
        return BASELINES[method](database, num_bits, seed)
    model = learned(method, database, num_bits, seed, options)
    return lambda vectors: jh.encode_weighted(model, vectors)


def weighted_recall(index, codes, weights, true, k):
    return jh.metrics.recall(true, jh.search(index, codes, k=k, weights=weights).ids)


def run(method, database, queries, true, num_bits, seed, options):
    """Returns bytes per code, recall with and without each shortlist and by weights (or NaN), and training time."""
    start, weighted, count = time.perf_counter(), float("nan"), max(options.k, *options.shortlists)
    if method == FAISS_RABITQ:
        found, size = faiss_rabitq(database, queries, count)
        seconds = time.perf_counter() - start
    else:
        encode, size = learn(method, database, num_bits, seed, options), -(-num_bits // 8)
        seconds = time.perf_counter() - start
        # Models also give weights.
        (codes, *_), (wanted, *weights) = (
            output if isinstance(output, tuple) else (output,) for output in map(encode, (database, queries))
        )
        index = jh.build_index(codes, num_bits)
        found = np.asarray(jh.search(index, wanted, k=count).ids)
        if weights:
            weighted = weighted_recall(index, wanted, *weights, true, options.k)
    kept = [jh.metrics.recall(true, found[:, : options.k])]
    kept += [
        jh.metrics.recall(true, nearest(database, queries, options.k, found[:, :size])) for size in options.shortlists
    ]
    return [size, *kept, weighted, seconds]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", help="a .npy file, float [n, d]")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--bits", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--queries", type=int, default=1000, help="how many")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--shortlists", nargs="+", type=int, default=[50, 100], help="their lengths")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden-dims", nargs="*", type=int, default=[])
    options = parser.parse_args(arguments)
    vectors = unit(np.load(options.vectors, allow_pickle=False).astype(np.float32))
    database, queries = vectors[: -options.queries], vectors[-options.queries :]
    true = nearest(database, queries, options.k)
    has_faiss = importlib.util.find_spec("faiss")
    methods = [method for method in options.methods if has_faiss or method not in (FAISS_LSH, FAISS_RABITQ)]
    print(f"{len(queries):,} queries, {len(database):,} vectors of {vectors.shape[1]} values\n")
    shortlisted = (f"of {size} re-ranked" for size in options.shortlists)
    print_row("method", "bits", "bytes", f"recall@{options.k}", *shortlisted, "weighted", "s")
    print_row(*["---"] * (6 + len(options.shortlists)))
    for num_bits in options.bits:
        for method in methods:
            bits = vectors.shape[1] if method in WHOLE else num_bits
            if method in WHOLE and num_bits != options.bits[0]:
                continue
            seeds = range(1 if method in UNSEEDED else options.seeds)
            runs = zip(*(run(method, database, queries, true, bits, seed, options) for seed in seeds), strict=True)
            sizes, *recalls, seconds = (list(values) for values in runs)
            print_row(method, bits, sizes[0], *(cell(values, ".3f") for values in recalls), cell(seconds[:1], ".1f"))


if __name__ == "__main__":
    main()
