"""Speed of training: `python tests/benchmarks/training.py --data DIR [--rounds 3]`

Times epochs of the source post's model on MNIST, batch size 256, compared with the same model in Keras 3 (on JAX) and
PyTorch, if installed, in turns in one process, and prints medians without compilation. Then prints the utilization:
floating-point operations of all matrix products of an epoch, forward and backward, relative to the operations of
1024 x 1024 `jnp.matmul` in the same time.
"""

import argparse
import functools
import os
import statistics
import time
from itertools import pairwise

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np

import jaxhash as jh

WIDTHS = (784, 1000, 700, 300, 150, 75, 17, 75, 150, 300, 700, 1000, 784)
BATCH = 256


def our_epochs(images):
    """Returns a function that trains and measures the seconds of the second of three epochs.

    The first may compile, and the last measures the statistics of the code logits.
    """
    model = jh.Autoencoder(WIDTHS[0], 17)

    def epoch():
        ends = []
        jh.fit(model, images, epochs=3, batch_size=BATCH, on_epoch=lambda *_: ends.append(time.perf_counter()))
        return ends[1] - ends[0]

    return epoch


def keras_epochs(images):
    """Returns the same for Keras 3, with straight-through rounding."""
    import keras

    @keras.saving.register_keras_serializable()
    class Round(keras.layers.Layer):
        def call(self, x):
            return x + jax.lax.stop_gradient(jnp.round(x) - x)

    layers = [keras.Input((WIDTHS[0],))]
    for number, width in enumerate(WIDTHS[1:], start=1):
        last = number in (6, len(WIDTHS) - 1)
        layers.append(keras.layers.Dense(width, "sigmoid" if last else "relu", kernel_initializer="he_normal"))
        if number == 6:
            layers.append(Round())
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Nadam(2e-3), "binary_crossentropy")
    values = np.float32(images.reshape(len(images), -1)) / 255
    model.fit(values, values, batch_size=BATCH, epochs=1, verbose=0)

    def epoch():
        start = time.perf_counter()
        model.fit(values, values, batch_size=BATCH, epochs=1, verbose=0)
        return time.perf_counter() - start

    return epoch


def torch_epochs(images):
    """Returns the same for eager PyTorch."""
    import torch

    class Round(torch.nn.Module):
        def forward(self, x):
            x = torch.sigmoid(x)
            return x + (torch.round(x) - x).detach()

    torch.set_num_threads(os.cpu_count())
    layers = []
    for number, (before, after) in enumerate(pairwise(WIDTHS), start=1):
        layers.append(torch.nn.Linear(before, after))
        if number < len(WIDTHS) - 1:
            layers.append(Round() if number == 6 else torch.nn.ReLU())
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.NAdam(model.parameters(), 2e-3)
    loss_of = torch.nn.BCEWithLogitsLoss()
    values = torch.from_numpy(np.float32(images.reshape(len(images), -1)) / 255)

    def epoch():
        start = time.perf_counter()
        for rows in torch.randperm(len(values)).split(BATCH):
            batch = values[rows]
            optimizer.zero_grad()
            loss_of(model(batch), batch).backward()
            optimizer.step()
        return time.perf_counter() - start

    return epoch


def product_rate():
    """Measures floating-point operations per second of products of 1024 x 1024 matrices."""
    matrix = jax.device_put(np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32))
    product = jax.jit(functools.partial(jnp.matmul, matrix))
    product(matrix).block_until_ready()
    start = time.perf_counter()
    for _ in range(50):
        product(matrix).block_until_ready()
    return 50 * 2 * 1024**3 / (time.perf_counter() - start)


def operations(count):
    """Counts floating-point operations of the matrix products of an epoch.

    A layer has three: forward, weight gradient and input gradient; the first layer needs no input gradient.
    """
    products = [a * b for a, b in pairwise(WIDTHS)]
    steps = -(-count // BATCH)
    return 2 * steps * BATCH * (3 * sum(products) - products[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the IDX files; by default $JAXHASH_DATA")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images = jh.load_dataset("mnist", options.data).train_images
    runs = {}
    for name, make in {"jaxhash": our_epochs, "Keras 3 on JAX": keras_epochs, "PyTorch": torch_epochs}.items():
        try:
            runs[name] = make(images)
        except ModuleNotFoundError as error:
            print(f"{name}: {error.name} is not installed")
    times, rates = {name: [] for name in runs}, []
    for _ in range(options.rounds):
        for name, epoch in runs.items():
            rates.append(product_rate())
            times[name].append(epoch())
    ours = statistics.median(times["jaxhash"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<16}{median:7.2f} s per epoch  {median / ours:5.2f} times jaxhash")
    rate = statistics.median(rates)
    share = operations(len(images)) / ours / rate
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s; an epoch reaches {share:.0%}")


if __name__ == "__main__":
    main()
