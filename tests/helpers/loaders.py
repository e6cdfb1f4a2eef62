"""Streams of batches as data loaders give them."""

import numpy as np


class Loader:
    """A data loader as tf.data and Grain have them: it can be gone through, and is neither a sequence nor an array.

    Every batch is in the same memory.
    """

    def __init__(self, rows, size):
        self.rows, self.size = rows, size
        self.memory = np.empty((size, *rows.shape[1:]), rows.dtype)

    def __iter__(self):
        for start in range(0, len(self.rows), self.size):
            batch = self.memory[: len(self.rows) - start]
            batch[:] = self.rows[start : start + self.size]
            yield batch
