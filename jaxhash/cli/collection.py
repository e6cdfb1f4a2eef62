"""Collections: a retriever, the source of its items, and the digest of each item when it was encoded.

A collection is what the command saves. An item keeps its id while its source changes: a vector's id is the number of
its row, an image's id is stored with its path.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhash.cli.embedder import Embedding
from jaxhash.cli.sources import DIGEST_WORDS, Items
from jaxhash.cli.vectors import name_items
from jaxhash.core.checks import check_choice, check_integer
from jaxhash.files.archive import Archive, read_archive, write_archive
from jaxhash.files.header import CorruptFileError
from jaxhash.index.building import build_index
from jaxhash.index.hash_index import HashIndex, sorted_arrays
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode
from jaxhash.retriever import Retriever, retriever_from_archive, retriever_to_arrays

KIND = "collection"
PURPOSES = ("similar", "duplicates")
MAX_SIDE = 1024


class Changes(NamedTuple):
    """The numbers of items that an update added, changed and removed."""

    added: int
    changed: int
    removed: int


@dataclass(frozen=True, eq=False)
class Collection:
    """The items of a source, with a model and the index of their codes."""

    retriever: Retriever[HashIndex]
    source: str  # the absolute path of a folder of images or of a .npy file
    ids: np.ndarray  # int32 [n], ascending
    names: tuple[str, ...]  # by id: paths inside the folder, or row numbers
    digests: np.ndarray  # uint32 [n, DIGEST_WORDS], sha256 of the files or rows when they were encoded
    embedding: Embedding | None = None  # by what images became the vectors that the model encodes
    purpose: str = PURPOSES[0]  # what the codes were learned for

    @property
    def holds_images(self) -> bool:
        """Whether the items are images; otherwise they are vectors."""
        return self.embedding is not None or len(self.retriever.model.input_shape) == 3

    @property
    def width(self) -> int:
        """The side of the images or the length of the vectors that the model encodes."""
        return self.retriever.model.input_shape[0]

    @property
    def side(self) -> int:
        """The side of the squares that images are stretched to, in pixels; for vectors, their length."""
        return self.width if self.embedding is None else self.embedding.side

    @property
    def known_digests(self) -> dict[str, bytes]:
        """The digest of each item, by its name."""
        return dict(zip(self.names, map(bytes, self.digests.astype("<u4")), strict=True))

    def find_digests(self, ids: ArrayLike) -> list[bytes]:
        """Finds the digests of items by their ids, which are known."""
        return [row.tobytes() for row in self.digests[np.searchsorted(self.ids, np.asarray(ids))].astype("<u4")]

    def encode(self, values: ArrayLike) -> jax.Array:
        """Encodes images, uint8 `[m, side, side, 3]`, or vectors, float32 `[m, width]`: codes uint32 `[m, w]`."""
        return encode(self.retriever.model, values)

    def find_codes(self, ids: Sequence[int]) -> np.ndarray:
        """Finds the codes of items: uint32 `[m, w]`; raises `ValueError` for an unknown id."""
        wanted = np.asarray(ids)
        unknown = wanted[~np.isin(wanted, self.ids)]
        if unknown.size:
            raise ValueError(f"there is no item {unknown[0]}: ids go from {self.ids[0]} to {self.ids[-1]}")
        table, offsets, ids_by_code = sorted_arrays(self.retriever.index)
        order = np.argsort(ids_by_code)
        return np.repeat(table, np.diff(offsets), axis=0)[order][np.searchsorted(self.ids, wanted)]

    def find_paths(self, ids: ArrayLike) -> list[str]:
        """Finds the absolute paths of images, or the row numbers of vectors."""
        names = [self.names[position] for position in np.searchsorted(self.ids, np.asarray(ids))]
        return [str(Path(self.source) / name) for name in names] if self.holds_images else names


def update_collection(old: Collection, items: Items, source: str) -> tuple[Collection, Changes]:
    """Updates a collection to the items that its source has now. Encodes only the fresh ones, with the same model.

    An item keeps its id as long as it keeps its name; new items get ids after the largest. An item keeps its code under
    any name.

    Args:
        old: the collection.
        items: the items now; fresh are those whose digests are not in `old.known_digests`.
        source: the path of the folder or file, which may have moved.

    Raises:
        ValueError: no item is unchanged, or the model does not take an item.
    """
    if items.fresh.all():
        raise ValueError(f"nothing in {source} is as it was when the file was built: build it anew by --retrain")
    digests = list(map(bytes, items.digests.astype("<u4")))
    id_of_digest = dict(zip(old.known_digests.values(), old.ids.tolist(), strict=True))
    codes = np.empty((len(digests), old.retriever.index.num_words), np.uint32)
    known = [id_of_digest[digest] for digest, fresh in zip(digests, items.fresh, strict=True) if not fresh]
    codes[~items.fresh] = old.find_codes(known)
    codes[items.fresh] = _encode_fresh(old, items, source)
    ids = _assign_ids(old, items.names)
    order = np.argsort(ids)
    new = replace(
        old,
        retriever=Retriever(old.retriever.model, build_index(codes, old.retriever.index.num_bits, ids=ids)),
        source=str(Path(source).absolute()),
        ids=ids[order],
        names=tuple(items.names[position] for position in order),
        digests=items.digests[order],
    )
    return new, _count_changes(old, new, int(items.fresh.sum()))


def _encode_fresh(old: Collection, items: Items, source: str) -> jax.Array:
    row = "" if old.holds_images else "row "
    labels = [f"{source}: {row}{name}" for name, fresh in zip(items.names, items.fresh, strict=True) if fresh]
    with name_items(labels, "leave it out, or build anew by --retrain"):
        return old.encode(items.values)


def _assign_ids(old: Collection, names: Sequence[str]) -> np.ndarray:
    id_of = dict(zip(old.names, old.ids.tolist(), strict=True))
    added = [name for name in names if name not in id_of]
    id_of |= {name: int(old.ids[-1]) + number for number, name in enumerate(added, start=1)}
    return np.array([id_of[name] for name in names], np.int32)


def _count_changes(old: Collection, new: Collection, num_fresh: int) -> Changes:
    """Counts images by their names. Rows of vectors have none: one may have moved, and then it has not changed."""
    before, after = old.known_digests, new.known_digests
    changed = sum(before.get(name, digest) != digest for name, digest in after.items())
    if not new.holds_images:
        changed = min(num_fresh, len(set(before.values()) - set(after.values())))
    return Changes(len(after.keys() - before.keys()), changed, len(before.keys() - after.keys()))


def save_collection(path: str | os.PathLike[str], collection: Collection) -> None:
    """Saves a collection to one file; raises what `save_index` raises."""
    meta, arrays = retriever_to_arrays(collection.retriever)
    embedding = None if collection.embedding is None else collection.embedding._asdict()
    described = {"source": collection.source, "images": collection.holds_images}
    meta = meta | {KIND: described | {"embedding": embedding, "purpose": collection.purpose}}
    arrays = arrays | {"collection.ids": collection.ids, "collection.digests": collection.digests}
    if collection.holds_images:
        text = b"".join(os.fsencode(name) + b"\0" for name in collection.names)  # file names hold no zero byte
        arrays["collection.names"] = np.frombuffer(text, np.uint8)
    write_archive(path, Archive(KIND, meta, arrays))


def load_collection(path: str | os.PathLike[str]) -> Collection:
    """Loads a collection.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: it is damaged, is not a saved collection, or its parts don't match.
    """
    archive = read_archive(path, KIND)
    retriever = retriever_from_archive(path, archive)
    try:
        return _build_collection(archive, retriever)
    except KeyError as error:
        raise CorruptFileError(f"{path}: collection: {error!r}") from None
    except (TypeError, ValueError) as error:
        raise CorruptFileError(f"{path}: {error}") from None


def _build_collection(archive: Archive, retriever: Retriever[HashIndex]) -> Collection:
    described = archive.meta[KIND]
    source, images, purpose = described["source"], described["images"], described["purpose"]
    if not isinstance(source, str) or "\0" in source or not isinstance(images, bool):
        raise ValueError(f"source must be a path and images true or false, got {source!r} and {images!r}")
    check_choice("purpose", purpose, PURPOSES)
    embedding = _read_embedding(described["embedding"], images)
    ids, digests = archive.arrays["collection.ids"], archive.arrays["collection.digests"]
    if not ids.size:
        raise ValueError("there are no items in it")
    if not np.array_equal(ids, np.sort(sorted_arrays(retriever.index)[2])) or ids.dtype != np.int32:
        raise ValueError("the ids in the table are not those in the index, in order")
    if digests.shape != (len(ids), DIGEST_WORDS) or digests.dtype != np.uint32:
        raise ValueError(f"digests must be uint32 ({len(ids)}, {DIGEST_WORDS}), got {digests.dtype}{digests.shape}")
    names = _read_names(archive.arrays["collection.names"], len(ids)) if images else tuple(map(str, ids))
    if not images and ids[-1] != len(ids) - 1:
        raise ValueError("the ids of vectors are not the numbers of their rows")
    _check_model(retriever.model, images and embedding is None)
    return Collection(retriever, source, ids, names, digests, embedding, purpose)


def _read_embedding(described: dict[str, Any] | None, images: bool) -> Embedding | None:
    if described is None:
        return None
    embedding = Embedding(**described)
    if not isinstance(embedding.name, str) or not images:
        raise ValueError(f"an embedding has a name and is of images, got {embedding.name!r}")
    return embedding._replace(side=check_integer("side", embedding.side, 1, MAX_SIDE))


def _check_model(model: Encoder, takes_images: bool) -> None:
    shape = model.input_shape
    if (shape != (shape[0], shape[0], 3)) if takes_images else (len(shape) != 1):
        raise ValueError(f"a model of items {shape} is none for these")
    if not takes_images and model.output_activation != "linear":
        raise ValueError(f"a model of vectors has linear outputs, not {model.output_activation}")


def _read_names(text: np.ndarray, count: int) -> tuple[str, ...]:
    if text.ndim != 1 or text.dtype != np.uint8:
        raise ValueError(f"names must be bytes [m], got {text.dtype}{text.shape}")
    *names, end = text.tobytes().split(b"\0")
    if end or len(names) != count or len(set(names)) != count or b"" in names:
        raise ValueError(f"the table of paths must hold {count} different ones, for as many items, got {len(names)}")
    return tuple(map(os.fsdecode, names))
