"""Retrieval quality of codes: `python tests/benchmarks/quality.py --data DIR [--seeds 3] [--bits 17 32 64] ...`

Prints a Markdown table for each data set. The training images are the database, the test images the queries; items with
the query's label are relevant. Mean average precision is over the whole ranking and all orders of ties. For the first
1,000, the protocol of most papers, ties are ordered by code, and it is divided by the number of relevant items among
these. Codes, buckets, dead bits and the largest correlation of two bits refer to the database. Columns named "weighted"
rank by weighted distance, all others by Hamming distance. The running loss is the mean over the steps of the last
epoch, the other loss uses all training images with their final codes. Training time includes compilation. Query times
are for the 10 nearest, all queries in one batch. "pretrained" first trains each layer for one epoch, which takes no
more time than two or three epochs of `fit`, and then all layers for `--epochs`. Figures are means and standard
deviations over the seeds.

For color images (`--datasets cifar-10`), "retrieve" trains a `PatchEncoder`. "cifar-10-features" are vectors of these
images from a pretrained network, in `cifar-10/efficientnet-lite0.npz` of the data folder. `display.py` draws results.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import baselines
import jax
import numpy as np
import pretraining
from flax import nnx

import jaxhash as jh

# Arguments of `fit`.
OBJECTIVES = {"reconstruct": {}, "retrieve": {"objective": "retrieve"}}
BINARIZATIONS = {name: {"binarization": name} for name in ("gaussian_noise", "stochastic")}
PRETRAINED = "pretrained"
FITS = OBJECTIVES | BINARIZATIONS | {PRETRAINED: {}}
BASELINES = {"LSH": baselines.lsh, "PCA sign": baselines.pca_sign, "ITQ": baselines.itq}
RAW_PIXELS = "raw pixels"
METHODS = [RAW_PIXELS, *BASELINES, *FITS]
OF_VECTORS = {name: {"objective": name} for name in ("keep_neighbors", "group_by_kind")}
FEATURES = "cifar-10-features"
FIRST = 1000
UNSEEDED = {RAW_PIXELS, "PCA sign"}

COLUMNS = {
    "mAP": ".3f",
    "mAP of first 1,000": ".3f",
    "P@100": ".3f",
    "P in radius 2": ".3f",
    "10-NN vote": ".3f",
    "mAP, weighted": ".3f",
    "mAP of first 1,000, weighted": ".3f",
    "P@100, weighted": ".3f",
    "10-NN vote, weighted": ".3f",
    "distinct codes": ",.0f",
    "bucket median": ".1f",
    "bucket max": ",.0f",
    "dead bits": ".1f",
    "largest correlation": ".2f",
    "running loss": ".4f",
    "loss": ".4f",
    "training s": ".1f",
    "us a query": ".1f",
}


def load(name, folder):
    """Loads a data set by name; `FEATURES` has vectors."""
    if name != FEATURES:
        return jh.load_dataset(name, folder)
    data = jh.load_dataset("cifar-10", folder)
    with np.load(Path(folder or os.environ["JAXHASH_DATA"]) / "cifar-10" / "efficientnet-lite0.npz") as vectors:
        train, test = (vectors[part].astype(np.float32) for part in ("train", "test"))
    return data._replace(name=name, train_images=train, test_images=test)


def methods_of(data):
    """Lists the methods that suit a data set."""
    return METHODS if data.train_images.ndim > 2 else [RAW_PIXELS, *BASELINES, *OF_VECTORS]


def make_model(method, images, num_bits, seed, options):
    """Makes the model for a method and images or vectors."""
    rngs = nnx.Rngs(seed)
    if method in OF_VECTORS:
        return jh.Autoencoder(images.shape[1], num_bits, (), output_activation="linear", rngs=rngs)
    if images.ndim == 4 and method == "retrieve":
        return jh.PatchEncoder(images.shape[1:], num_bits, rngs=rngs)
    return jh.Autoencoder(images[0].size, num_bits, options.hidden_dims, rngs=rngs)


def learned(method, images, num_bits, seed, options):
    """Trains a model; returns a function from images to codes and weights, and the losses."""
    model = make_model(method, images, num_bits, seed, options)
    if method == PRETRAINED:
        model = pretraining.pretrain(model, images, seed=seed)
    batch_size = 512 if isinstance(model, jh.PatchEncoder) else 256
    arguments = (FITS | OF_VECTORS)[method]
    model, history = jh.fit(model, images, epochs=options.epochs, batch_size=batch_size, seed=seed, **arguments)
    losses = {"running loss": history.loss[-1]}
    if isinstance(model, jh.Autoencoder):
        losses["loss"] = jh.training.reconstruction_loss(model, images)
    return lambda images: tuple(np.asarray(array) for array in jh.encode_weighted(model, images)), losses


def learn(method, images, num_bits, seed, options):
    """Returns a function from images to codes and weights (or `None`), and the training report."""
    if method in BASELINES:
        encode = BASELINES[method](images, num_bits, seed)
        return lambda images: (encode(images), None), {}
    return learned(method, images, num_bits, seed, options)


def judged_by_ids(ids, data):
    """Computes measures of the nearest items, `[q, k]`."""
    return {
        "mAP of first 1,000": average_precision(ids, data),
        "P@100": jh.metrics.precision_at_k(ids, data.train_labels, data.test_labels, k=100),
        "10-NN vote": jh.metrics.vote_accuracy(ids[:, :10], data.train_labels, data.test_labels),
    }


def average_precision(ids, data):
    """Computes the mean over queries of the mean precision at each relevant item of `[q, k]`, in order."""
    relevant = data.train_labels[ids] == data.test_labels[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, ids.shape[1] + 1)
    return ((precision * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)).mean()


def judged(codes, queries, weights, data, num_bits):
    """Computes all measures from the codes of the database and the queries, and the queries' weights if any."""
    counts = jh.metrics.distance_counts(codes, data.train_labels, queries, data.test_labels, num_bits)
    index = jh.build_index(codes, num_bits)
    ids = jh.search(index, queries, k=min(FIRST, len(codes))).ids
    stats = jh.codes.bit_statistics(codes, num_bits)
    return (
        {
            "mAP": counts.mean_average_precision(),
            "P in radius 2": counts.precision_in_radius(radius=2),
            "distinct codes": stats.num_codes,
            "bucket median": stats.median_density,
            "bucket max": stats.max_density,
            "dead bits": len(stats.dead_bits),
            "largest correlation": stats.max_correlation,
            "us a query": microseconds_of(lambda: jh.search(index, queries, k=10)) / len(queries),
        }
        | judged_by_ids(ids, data)
        | judged_by_weights(index, codes, queries, weights, data)
    )


def judged_by_weights(index, codes, queries, weights, data):
    """Computes measures of rankings by weighted distance."""
    if weights is None:
        return {}
    labels = data.train_labels, data.test_labels
    counts = jh.metrics.distance_counts(codes, labels[0], queries, labels[1], index.num_bits, weights=weights)
    ids = jh.search(index, queries, k=min(FIRST, len(codes)), weights=weights).ids
    found = {"mAP": counts.mean_average_precision()} | judged_by_ids(ids, data)
    return {f"{name}, weighted": value for name, value in found.items()}


def microseconds_of(function):
    """Measures the median of three runs after a warm-up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def run(method, data, num_bits, seed, options):
    """Computes the measures of one method, trained once."""
    if method == RAW_PIXELS:
        precision, ids = baselines.pixel_ranking(*data[1:], k=min(FIRST, len(data.train_labels)))
        return {"mAP": precision} | judged_by_ids(ids, data)
    start = time.perf_counter()
    encode, losses = learn(method, data.train_images, num_bits, seed, options)
    seconds = time.perf_counter() - start
    codes, _ = encode(data.train_images)
    return judged(codes, *encode(data.test_images), data, num_bits) | losses | {"training s": seconds}


def cell(values, form):
    """Formats mean and standard deviation of the values, if any."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread}"


def print_row(*cells):
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def print_table(data, options):
    """Prints a row for each method and number of bits of a data set, as soon as it is finished."""
    print(f"\n### {data.name}: {len(data.test_labels):,} queries, {len(data.train_labels):,} images\n")
    print_row("method", "bits", *COLUMNS)
    print_row(*["---"] * (len(COLUMNS) + 2))
    for method in options.methods or methods_of(data):
        for num_bits in options.bits if method != RAW_PIXELS else [""]:
            seeds = range(1 if method in UNSEEDED else options.seeds)
            runs = [run(method, data, num_bits, seed, options) for seed in seeds]
            cells = [cell([found[name] for found in runs if name in found], COLUMNS[name]) for name in COLUMNS]
            print_row(method, num_bits, *cells)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the IDX files; by default $JAXHASH_DATA")
    parser.add_argument("--datasets", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *OF_VECTORS], help="by default all")
    parser.add_argument("--bits", nargs="+", type=int, default=[17, 32, 64])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--hidden-dims", nargs="+", type=int, default=[1000, 700, 300, 150, 75], help="the post's")
    parser.add_argument("--queries", type=int, help="number of test images to use")
    options = parser.parse_args(arguments)
    for name in options.datasets:
        data = load(name, options.data)
        some = slice(options.queries)
        print_table(data._replace(test_images=data.test_images[some], test_labels=data.test_labels[some]), options)


if __name__ == "__main__":
    main()
