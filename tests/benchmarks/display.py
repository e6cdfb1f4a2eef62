"""Search results for photographs: `python tests/benchmarks/display.py -o FILE.png [--data DIR] [--epochs 40] ...`

After a figure of Krizhevsky and Hinton (ESANN 2011): the nearest training images of some CIFAR-10 test images, by codes
of 256 bits, by codes of 28 bits, and by Euclidean distance of pixels. The short codes are the first bits of the long
ones. Images of another class than the query have a red frame.
"""

import argparse

import baselines
import numpy as np

import jaxhash as jh

BITS, SHORT_BITS = 256, 28
NEAREST = 12


def find(model, data, queries):
    """Finds the ids of the nearest training images by each method, `[q, NEAREST]`."""
    images = data.test_images[queries]
    long_codes, long_queries = jh.encode(model, data.train_images), jh.encode(model, images)
    found = {f"{BITS} bits": jh.search(jh.build_index(long_codes, BITS), long_queries, k=NEAREST).ids}
    short_codes, short_queries = (jh.codes.first_bits(codes, SHORT_BITS) for codes in (long_codes, long_queries))
    found[f"{SHORT_BITS} bits"] = jh.search(jh.build_index(short_codes, SHORT_BITS), short_queries, k=NEAREST).ids
    _, ids = baselines.pixel_ranking(data.train_images, data.train_labels, images, data.test_labels[queries], NEAREST)
    return {name: np.asarray(rows) for name, rows in {**found, "Euclid": ids}.items()}


def draw(path, found, data, queries):
    """Draws each query and its nearest images, with a row per method."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(queries) * len(found), NEAREST + 1, figsize=(NEAREST + 1, len(queries) * len(found)), squeeze=False
    )
    rows = [(query, place, name) for place, query in enumerate(queries) for name in found]
    for (query, place, name), cells in zip(rows, axes, strict=True):
        ids = found[name][place]
        pictures = [data.test_images[query], *data.train_images[ids]]
        alike = [True, *(data.train_labels[ids] == data.test_labels[query])]
        for cell, picture, right in zip(cells, pictures, alike, strict=True):
            cell.imshow(picture)
            cell.set(xticks=[], yticks=[])
            for spine in cell.spines.values():
                spine.set(color="white" if right else "red", linewidth=3)
        cells[0].set_ylabel(name, fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--data", help="folder of the data; by default $JAXHASH_DATA")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--images", type=int, help="number of training images to use")
    parser.add_argument("--queries", nargs="+", type=int, default=[*range(8)], help="numbers of test images")
    options = parser.parse_args(arguments)
    data = jh.load_dataset("cifar-10", options.data)
    some = slice(options.images)
    data = data._replace(train_images=data.train_images[some], train_labels=data.train_labels[some])
    model = jh.PatchEncoder(data.train_images.shape[1:], BITS)
    objective = jh.training.Retrieve(short_bits=SHORT_BITS)
    model, _ = jh.fit(model, data.train_images, epochs=options.epochs, batch_size=512, objective=objective)
    found = find(model, data, options.queries)
    for name, ids in found.items():
        right = data.train_labels[ids] == data.test_labels[options.queries][:, None]
        print(f"{name:<10}{right.mean():.0%} of the {NEAREST} nearest have the query's class")
    draw(options.output, found, data, options.queries)


if __name__ == "__main__":
    main()
