"""Baselines for learned codes: binary codes without a network, and raw pixels.

Each learner takes training images, uint8 `[n, ...]`, a number of bits and a seed. It returns a function from images to
packed codes, uint32 `[n, w]`.
"""

import numpy as np

import jaxhash as jh

ITERATIONS = 50


def vectors(images):
    """Converts images to float32 `[n, d]` in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def signs_of(mean, projection):
    """Returns an encoder with a bit for the side of each hyperplane through the mean."""
    return lambda images: jh.pack_bits((vectors(images) - mean) @ projection > 0)


def lsh(images, num_bits, seed):
    """Learns random hyperplanes through the mean (Charikar 2002)."""
    mean = vectors(images).mean(0, dtype=np.float64).astype(np.float32)
    return signs_of(mean, np.random.default_rng(seed).standard_normal((len(mean), num_bits), np.float32))


def principal_axes(data, count):
    """Computes the mean `[d]` and the first `count` principal axes `[d, count]`, as float32."""
    if count > data.shape[1]:
        raise ValueError(f"{data.shape[1]} values have no {count} principal axes")
    mean = data.mean(0, dtype=np.float64).astype(np.float32)
    centered = data - mean
    axes = np.linalg.eigh((centered.T @ centered).astype(np.float64))[1]
    return mean, axes[:, ::-1][:, :count].astype(np.float32)


def pca_sign(images, num_bits, seed=0):
    """Learns the signs of principal components; the seed has no effect."""
    return signs_of(*principal_axes(vectors(images), num_bits))


def itq(images, num_bits, seed):
    """Learns principal components, rotated toward their signs (Gong and Lazebnik 2011)."""
    data = vectors(images)
    mean, axes = principal_axes(data, num_bits)
    start = np.linalg.qr(np.random.default_rng(seed).standard_normal((num_bits, num_bits)))[0]
    rotation, _ = itq_rotation((data - mean) @ axes, start.astype(np.float32))
    return signs_of(mean, axes @ rotation)


def itq_rotation(components, rotation):
    """Alternates rounding and rotation; returns the rotation `[b, b]` and the quantization loss before each step.

    The loss is the squared distance of rotated components `[n, b]` from their signs; neither half-step increases it.
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
    """Ranks raw pixels by Euclidean distance: mean average precision, ids of the k nearest, `[q, k]`."""
    train, test = (images.reshape(len(images), -1).astype(np.float64) for images in (train_images, test_images))
    squares = np.square(train).sum(1)
    precisions, nearest = [], []
    for first in range(0, len(test), at_once):
        batch, labels = test[first : first + at_once], test_labels[first : first + at_once]
        distances = squares - 2 * (batch @ train.T)  # exact: integers, without the query's squared norm
        relevant = labels[:, None] == train_labels
        precisions.append(jh.metrics.mean_average_precision(distances, relevant) * len(batch))
        near = np.argpartition(distances, k - 1, axis=1)[:, :k]
        nearest.append(np.take_along_axis(near, np.take_along_axis(distances, near, axis=1).argsort(axis=1), axis=1))
    return sum(precisions) / len(test), np.concatenate(nearest)
