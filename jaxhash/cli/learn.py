"""From the items of a source to a collection: learning, encoding, and later changes with the model as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxhash.cli.collection import Collection, Scaling, encode_scaled
from jaxhash.cli.sources import Items
from jaxhash.index.changes import add_items, remove_items
from jaxhash.index.density import suggest_num_bits
from jaxhash.index.hash_index import build_index
from jaxhash.models.autoencoder import Autoencoder
from jaxhash.models.convolutional import ConvAutoencoder
from jaxhash.retriever import Retriever
from jaxhash.training.epoch import History
from jaxhash.training.fitting import fit
from jaxhash.training.objectives import Objective, Reconstruct, Retrieve

BATCH_SIZE = 256
# Steps of learning, from which the number of epochs follows; convolutions take long.
IMAGE_STEPS, VECTOR_STEPS = 400, 1500
LEAST_EPOCHS = 5
# Vectors of somebody else's network say already what is alike: on those of sentences a gentle contrast kept more of the
# nearest than the one for images, and layers between vector and code kept less.
VECTOR_OBJECTIVE = Retrieve(warp=None, contrast=0.1, coarse_share=1.0)
VECTORS_FOR_SCALE = 2**16

# Among fewer items the nearest ten are not alike, and in fewer dimensions the direction of a vector says little.
LEAST_TO_CONTRAST, LEAST_DIMENSIONS = 200, 16


class Changes(NamedTuple):
    """How many items a second build found new, changed and gone."""

    added: int
    changed: int
    removed: int


def new_collection(
    items: Items,
    source: str,
    num_bits: int | None,
    epochs: int | None,
    on_epoch: Callable[[int, int, History], None],
) -> Collection:
    """Learns from all items and encodes them.

    Args:
        items: those of a source, all of them fresh.
        source: the folder or file.
        num_bits: the length of the codes; by default that of `suggest_num_bits`.
        epochs: how often to go through the items; by default what makes `IMAGE_STEPS` or `VECTOR_STEPS`.
        on_epoch: called with the number of an epoch, that of all epochs, and the history so far.

    Raises:
        DivergenceError: as `fit` does.
    """
    values = items.values
    scaling = None if values.ndim == 4 else _scaling_of(values)
    num_bits = suggest_num_bits(len(values)) if num_bits is None else num_bits
    epochs = default_epochs(values) if epochs is None else epochs
    model, _ = fit(
        _new_model(values, num_bits),
        values if scaling is None else (values - scaling.shift) / scaling.scale,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        objective=objective_for(values),
        on_epoch=lambda epoch, history: on_epoch(epoch, epochs, history),
    )
    index = build_index(encode_scaled(model, scaling, values), num_bits)
    ids = np.arange(len(values), dtype=np.int32)
    return Collection(
        Retriever(model, index), str(Path(source).absolute()), ids, tuple(items.names), items.digests, scaling
    )


def _new_model(values: np.ndarray, num_bits: int) -> Autoencoder:
    if values.ndim == 4:
        return ConvAutoencoder(values.shape[1:], num_bits)
    return Autoencoder(values.shape[1], num_bits, (), output_activation="linear")


def _scaling_of(vectors: np.ndarray) -> Scaling:
    """The mean of vectors, and one deviation for all values, so that distances keep their proportions."""
    some = vectors[:: -(-len(vectors) // VECTORS_FOR_SCALE)]
    shift = some.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(some - shift).mean()) or 1.0
    return Scaling(shift.astype(np.float32), np.array(deviation, np.float32))


def default_epochs(values: np.ndarray) -> int:
    """As many epochs as make the usual number of steps."""
    steps = IMAGE_STEPS if values.ndim == 4 else VECTOR_STEPS
    return max(LEAST_EPOCHS, round(steps / -(-len(values) // BATCH_SIZE)))


def objective_for(values: np.ndarray) -> Objective:
    """What to learn for: codes that retrieve, where neighbours can tell what is alike."""
    if len(values) < LEAST_TO_CONTRAST or (values.ndim == 2 and values.shape[1] < LEAST_DIMENSIONS):
        return Reconstruct()
    return Retrieve() if values.ndim == 4 else VECTOR_OBJECTIVE


def updated(old: Collection, items: Items, source: str) -> tuple[Collection, Changes]:
    """The collection of the items that a source has now, by the same model; only the fresh ones are encoded.

    An item keeps its id as long as it has its name; new ones get ids after the largest.

    Args:
        old: what the source had.
        items: what it has now; fresh are those whose digests differ from `old.known`.
        source: the folder or file, which may have moved.

    Raises:
        ValueError: nothing is left of the old items.
    """
    if items.fresh.all():
        raise ValueError(f"nothing in {source} is as it was when the file was built: build it anew by --retrain")
    id_of = dict(zip(old.names, old.ids.tolist(), strict=True))
    added = [name for name in items.names if name not in id_of]
    id_of |= {name: int(old.ids[-1]) + place for place, name in enumerate(added, start=1)}
    ids = np.array([id_of[name] for name in items.names], np.int32)
    kept = np.isin(old.ids, ids[~items.fresh])
    index = remove_items(old.retriever.index, old.ids[~kept])
    index = add_items(index, old.encode(items.values), ids=ids[items.fresh])
    order = np.argsort(ids)
    names = tuple(items.names[place] for place in order)
    retriever = Retriever(old.retriever.model, index)
    collection = Collection(
        retriever, str(Path(source).absolute()), ids[order], names, items.digests[order], old.scaling
    )
    changed = int(items.fresh.sum()) - len(added)
    return collection, Changes(len(added), changed, len(old.ids) - int(kept.sum()) - changed)
