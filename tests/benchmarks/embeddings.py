"""What do codes keep of float vectors? `python tests/benchmarks/embeddings.py VECTORS.npy [--bits 64 128 256] ...`

Prints a table in Markdown: the recall of each query's k nearest vectors by cosine, among the k nearest codes, and among
the k best by cosine of a shortlist of the nearest codes. The last vectors of the file are the queries, the others are
learned from and searched. `sentences.py` makes such a file. Numbers are means over the seeds, with the standard
deviation behind them; FAISS draws its own random rotation, so it is run once. Times are of the first seed and include
compiling.
"""

import argparse
import importlib.util
import time

import baselines
import numpy as np
from flax import nnx
from quality import cell, print_row

import jaxhash as jh

# The default weights suit images. They draw vectors of a kind together, but each should keep its neighbours.
GENTLE = jh.Retrieve(warp=None, contrast=0.1, coarse_share=1.0)
OBJECTIVES = {"reconstruct": "reconstruct", "retrieve": "retrieve", "retrieve, gently": GENTLE}
FAISS_LSH = "FAISS IndexLSH"
BASELINES = {"LSH": baselines.lsh, "ITQ": baselines.itq}
SIGNS = "signs of the values"
METHODS = [SIGNS, FAISS_LSH, *BASELINES, *OBJECTIVES]
UNSEEDED = {SIGNS, FAISS_LSH}


def unit(vectors):
    """Vectors of length 1: then the order by distance is that by cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def centred_by(sample):
    """Returns a function that centres and scales vectors by the sample's mean and its deviation over all values."""
    mean, deviation = sample.mean(axis=0), (sample - sample.mean(axis=0)).std()
    return lambda vectors: ((vectors - mean) / deviation).astype(np.float32)


def nearest(database, queries, k, among=None):
    """The k vectors of largest product with each query, the largest first: int `[q, k]`.

    Args:
        among: int `[q, s]`, a shortlist for each query; by default all.
    """
    if among is None:
        products = queries @ database.T
        among = np.argpartition(-products, k - 1, axis=1)[:, :k]
    products = np.einsum("qd,qsd->qs", queries, database[among])
    return np.take_along_axis(among, np.argsort(-products, axis=1, kind="stable")[:, :k], axis=1)


def learned(objective, database, num_bits, seed, options):
    """The encoder of a trained model."""
    scale = centred_by(database) if options.centre else lambda vectors: vectors
    model = jh.Autoencoder(
        database.shape[1], num_bits, options.hidden_dims, output_activation="linear", rngs=nnx.Rngs(seed)
    )
    model, _ = jh.fit(model, scale(database), epochs=options.epochs, seed=seed, objective=OBJECTIVES[objective])
    return lambda vectors: np.asarray(jh.encode(model, scale(vectors)))


def faiss_lsh(database, num_bits):
    """FAISS's random rotation of the vectors, with its settings as they are."""
    import faiss

    index = faiss.IndexLSH(database.shape[1], num_bits)
    index.train(database)
    return lambda vectors: np.asarray(jh.codes_from_bytes(index.sa_encode(vectors), num_bits))


def learn(method, database, num_bits, seed, options):
    if method == SIGNS:
        return lambda vectors: np.asarray(jh.pack_bits(vectors > 0))
    if method == FAISS_LSH:
        return faiss_lsh(database, num_bits)
    if method in BASELINES:
        return BASELINES[method](database, num_bits, seed)
    return learned(method, database, num_bits, seed, options)


def run(method, database, queries, true, num_bits, seed, options):
    """Recall with and without each shortlist, and what learning took."""
    start = time.perf_counter()
    encode = learn(method, database, num_bits, seed, options)
    seconds = time.perf_counter() - start
    index = jh.build_index(encode(database), num_bits)
    found = np.asarray(jh.search(index, encode(queries), k=max(options.k, *options.shortlists)).ids)
    kept = [jh.recall(found[:, : options.k], true)]
    kept += [jh.recall(nearest(database, queries, options.k, found[:, :size]), true) for size in options.shortlists]
    return [*kept, seconds]


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
    parser.add_argument("--centre", action=argparse.BooleanOptionalAction, default=True, help="and scale, for ours")
    options = parser.parse_args(arguments)
    vectors = unit(np.load(options.vectors, allow_pickle=False).astype(np.float32))
    database, queries = vectors[: -options.queries], vectors[-options.queries :]
    true = nearest(database, queries, options.k)
    methods = [method for method in options.methods if method != FAISS_LSH or importlib.util.find_spec("faiss")]
    print(f"{len(queries):,} queries, {len(database):,} vectors of {vectors.shape[1]} values\n")
    print_row("method", "bits", f"recall@{options.k}", *(f"of {size} re-ranked" for size in options.shortlists), "s")
    print_row(*["---"] * (4 + len(options.shortlists)))
    for num_bits in options.bits:
        for method in methods:
            bits = vectors.shape[1] if method == SIGNS else num_bits
            if method == SIGNS and num_bits != options.bits[0]:
                continue
            seeds = range(1 if method in UNSEEDED else options.seeds)
            runs = zip(*(run(method, database, queries, true, bits, seed, options) for seed in seeds), strict=True)
            *recalls, seconds = (list(values) for values in runs)
            print_row(method, bits, *(cell(values, ".3f") for values in recalls), cell(seconds[:1], ".1f"))


if __name__ == "__main__":
    main()
