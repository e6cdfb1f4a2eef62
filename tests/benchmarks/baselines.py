"""Baselines for learned codes: binary codes without a network, and raw pixels.

Each learner takes training images uint8 `[n, ...]`, a number of bits and a seed, and returns a function from images to
packed codes, uint32 `[n, w]`.
"""

import numpy as np

import jaxhash as jh

ITERATIONS = 50


def vectors(images):
    """Images as float32 `[n, d]` in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def signs_of(mean, projection):
    """Returns an encoder whose bits tell the side of each hyperplane through the mean."""
    return lambda images: jh.pack_bits((vectors(images) - mean) @ projection > 0)


def lsh(images, num_bits, seed):
    """Random hyperplanes through the mean (Charikar 2002)."""
    mean = vectors(images).mean(0, dtype=np.float64).astype(np.float32)
    return signs_of(mean, np.random.default_rng(seed).standard_normal((len(mean), num_bits), np.float32))


def principal_axes(data, count):
    """The mean `[d]` and the `count` axes of largest variance, the largest first, `[d, count]`, as float32."""
    if count > data.shape[1]:
        raise ValueError(f"{data.shape[1]} values have no {count} principal axes")
    mean = data.mean(0, dtype=np.float64).astype(np.float32)
    centred = data - mean
    axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1]
    return mean, axes[:, ::-1][:, :count].astype(np.float32)


def pca_sign(images, num_bits, seed=0):
    """The signs of the principal components; the seed has no effect."""
    return signs_of(*principal_axes(vectors(images), num_bits))


def itq(images, num_bits, seed):
    """Principal components, rotated to lie near the corners of a cube (Gong and Lazebnik 2011)."""
    data = vectors(images)
    mean, axes = principal_axes(data, num_bits)
    start = np.linalg.qr(np.random.default_rng(seed).standard_normal((num_bits, num_bits)))[0]
    rotation, _ = itq_rotation((data - mean) @ axes, start.astype(np.float32))
    return signs_of(mean, axes @ rotation)


def itq_rotation(components, rotation):
    """Alternates rounding and rotating: the rotation `[b, b]`, and the quantisation loss before each step.

    The loss is the squared distance of rotated components `[n, b]` from their signs; neither half of a step raises it.
    """
    losses = []
    for _ in range(ITERATIONS):
        turned = components @ rotation
        corners = np.where(turned > 0, np.float32(1), np.float32(-1))
        losses.append(float(np.square(turned - corners).sum(dtype=np.float64)))
        left, _, right = np.linalg.svd(components.T @ corners)
        rotation = left @ right
    return rotation, losses


def pixel_ranking(train_images, train_labels, test_images, test_labels, k, at_once=200):
    """Raw pixels by Euclidean distance: mean average precision, and the ids of the k nearest, `[q, k]`."""
    train, test = (images.reshape(len(images), -1).astype(np.float64) for images in (train_images, test_images))
    squares = np.square(train).sum(1)
    precisions, nearest = [], []
    for first in range(0, len(test), at_once):
        batch, labels = test[first : first + at_once], test_labels[first : first + at_once]
        distances = squares - 2 * (batch @ train.T)  # whole numbers, and less the query's own square: exact
        relevant = labels[:, None] == train_labels
        precisions.append(jh.metrics.mean_average_precision(distances, relevant) * len(batch))
        near = np.argpartition(distances, k - 1, axis=1)[:, :k]
        nearest.append(np.take_along_axis(near, np.take_along_axis(distances, near, axis=1).argsort(axis=1), axis=1))
    return sum(precisions) / len(test), np.concatenate(nearest)
