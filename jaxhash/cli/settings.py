"""How the command `build` learns: the model, the objective and the length of training that suit the items."""

from typing import NamedTuple

import numpy as np

from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.convolutional import ConvAutoencoder
from jaxhash.models.encoder import Encoder
from jaxhash.models.patch_encoder import PatchEncoder
from jaxhash.training.duplicates import FindDuplicates
from jaxhash.training.objectives import Objective, Reconstruct, Retrieve
from jaxhash.training.vector_objectives import KeepNeighbors

BATCH_SIZE, PHOTO_BATCH_SIZE = 256, 512
# Training steps, from which the number of epochs follows. Convolutions are slow.
IMAGE_STEPS, VECTOR_STEPS, PHOTO_STEPS = 400, 1500, 4000
MIN_EPOCHS = 5
# On held-out images of CIFAR-10, precision rises by .02 from 15 epochs to these.
MAX_PHOTO_EPOCHS = 40

# Among fewer items the nearest ten are not similar. In fewer dimensions the direction of a vector means little.
MIN_ITEMS_TO_CONTRAST, MIN_DIMENSIONS = 200, 16
IMAGES_TO_LOOK_AT = 1000


class Settings(NamedTuple):
    """The arguments of `fit`."""

    model: Encoder
    objective: Objective
    batch_size: int
    epochs: int


def choose_settings(values: np.ndarray, num_bits: int, *, finds_duplicates: bool = False) -> Settings:
    """Chooses for images uint8 `[n, h, w, c]` or vectors `[n, d]`.

    Many colored images are encoded by their patches, others by convolutions. Where neighbors are similar, the
    objective is one for retrieval, otherwise one for reconstruction.
    """
    objective = FindDuplicates() if finds_duplicates else _choose_objective(values)
    if isinstance(objective, Retrieve) and _are_colored(values):
        epochs = min(MAX_PHOTO_EPOCHS, _count_epochs(values, PHOTO_STEPS, PHOTO_BATCH_SIZE))
        return Settings(PatchEncoder(values.shape[1:], num_bits), objective, PHOTO_BATCH_SIZE, epochs)
    if values.ndim == 4:
        model: Encoder = ConvAutoencoder(values.shape[1:], num_bits)
        return Settings(model, objective, BATCH_SIZE, _count_epochs(values, IMAGE_STEPS, BATCH_SIZE))
    model = Autoencoder(values.shape[1], num_bits, (), output_activation="linear")
    return Settings(model, objective, BATCH_SIZE, _count_epochs(values, VECTOR_STEPS, BATCH_SIZE))


def _are_colored(images: np.ndarray) -> bool:
    """Returns whether the first images have colors: a folder's gray ones come with three channels too."""
    some = images[:IMAGES_TO_LOOK_AT]
    return some.shape[3] == 3 and bool((some != some[..., :1]).any())


def _count_epochs(values: np.ndarray, steps: int, batch_size: int) -> int:
    return max(MIN_EPOCHS, round(steps / -(-len(values) // batch_size)))


def _choose_objective(values: np.ndarray) -> Objective:
    if len(values) < MIN_ITEMS_TO_CONTRAST or (values.ndim == 2 and values.shape[1] < MIN_DIMENSIONS):
        return Reconstruct()
    return Retrieve() if values.ndim == 4 else KeepNeighbors()
