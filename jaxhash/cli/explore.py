"""The command `explore`: one page, without a server, on which a collection is searched by clicks.

The page holds codes, names and small pictures, and `explore.js` searches them. Items are numbered on it by their place
in the order of (code, id), so that the first of several at one distance is the first that `search` would return.
"""

import base64
import html
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxhash.cli import page
from jaxhash.cli.collection import Collection, load_collection
from jaxhash.cli.images import ImageError, check_pillow, guard_pillow, make_thumbnail
from jaxhash.cli.outputs import check_output
from jaxhash.cli.sheets import COLUMNS, PER_SHEET, decode_picture, make_sheets, shrink_picture
from jaxhash.cli.sources import start_workers
from jaxhash.cli.terminal import StatusLine, escape_name
from jaxhash.core.checks import check_integer
from jaxhash.datasets import Dataset, load_dataset
from jaxhash.files.archive import read_archive
from jaxhash.files.atomic import replace_file
from jaxhash.index.file import load_index
from jaxhash.index.hash_index import HashIndex, sorted_arrays
from jaxhash.retriever import load_retriever

SIDE = 64  # of a picture at most, in pixels
# More items are shown only if one says how many: their page is large, and finding duplicates on it slow.
MAX_ITEMS = 20_000

Picture = np.ndarray | None  # uint8 [h, w, 3]; None if it can't be shown


@dataclass(frozen=True)
class Shown:
    """What a page shows of each item, by its id."""

    index: HashIndex
    name: Callable[[int], str]
    picture: Callable[[int], Picture] | None = None  # None if items have no pictures


def run_explore(
    path: str,
    output: str,
    *,
    dataset: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> None:
    """Writes a page on which the items of a file are searched and their codes compared.

    Args:
        path: a collection, or a retriever or an index.
        output: the page to write.
        dataset: the name of the data set whose training images are the items of a retriever or an index; without it,
            these are shown by their ids.
        data_dir: the folder of the data set's files.
        limit: how many items to show at most, the first by their ids; by default all, if they are at most `MAX_ITEMS`.

    Raises:
        ValueError: there are too many items or none, items have several codes, or the data set doesn't fit the file.
    """
    if limit is not None:
        check_integer("limit", limit, 1)
    check_output(output, "page", [path])
    shown = _open(path, dataset, data_dir)
    codes, ids = _select_items(path, shown.index, limit)
    pictures = _read_pictures(shown.picture, ids)
    text = _render(f"Explore {escape_name(Path(path).name)}", shown, codes, ids, pictures)
    with replace_file(output) as file:
        file.write(text.encode())
    _report(output, shown, pictures, len(ids), len(text))


def _open(path: str, dataset: str | None, data_dir: str | os.PathLike[str] | None) -> Shown:
    kind = read_archive(path).kind
    if kind == "collection":
        if dataset is not None:
            raise ValueError(f"{path} knows the images or vectors that it was built of: leave out --dataset")
        return _show_collection(load_collection(path))
    index = load_retriever(path).index if kind == "retriever" else load_index(path)
    return Shown(index, str) if dataset is None else _show_dataset(path, index, load_dataset(dataset, data_dir))


def _show_collection(collection: Collection) -> Shown:
    names = dict(zip(collection.ids.tolist(), map(escape_name, collection.names), strict=True))
    if not collection.holds_images:
        return Shown(collection.retriever.index, names.__getitem__)
    check_pillow()

    def read(number: int) -> Picture:
        (path,) = collection.find_paths(np.array([number]))
        try:
            return decode_picture(make_thumbnail(path, SIDE))
        except ImageError:  # deleted or changed since it was encoded
            return None

    return Shown(collection.retriever.index, names.__getitem__, read)


def _show_dataset(path: str, index: HashIndex, data: Dataset) -> Shown:
    check_pillow()
    count = len(data.train_images)
    largest = int(sorted_arrays(index)[2].max(initial=-1))
    if largest >= count:
        raise ValueError(f"{path} has an item {largest}, but {data.name} has {count:,} training images")
    return Shown(
        index,
        lambda number: f"{number}, label {data.train_labels[number]}",
        lambda number: shrink_picture(page.draw_as_ink(data.train_images[number]), SIDE),
    )


def _select_items(path: str, index: HashIndex, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes uint32 `[n, w]` and ids int32 `[n]` of the items to show, in the order of (code, id)."""
    if index.multi:
        raise ValueError(f"{path} holds several codes for each item: there is no one code to show")
    table, offsets, ids = sorted_arrays(index)
    if not ids.size:
        raise ValueError(f"{path} holds no items")
    if limit is None and len(ids) > MAX_ITEMS:
        raise ValueError(
            f"{path} holds {len(ids):,} items, more than {MAX_ITEMS:,}: --limit {MAX_ITEMS} shows the first of them, "
            f"--limit {len(ids)} all, on a large page"
        )
    kept = ids <= np.sort(ids)[: limit or len(ids)][-1]
    return np.repeat(table, np.diff(offsets), axis=0)[kept], ids[kept]


def _read_pictures(read: Callable[[int], Picture] | None, ids: np.ndarray) -> list[Picture]:
    if read is None:
        return [None] * len(ids)
    status, pictures = StatusLine(), []
    with guard_pillow(), start_workers() as workers:
        for picture in workers.map(read, ids.tolist()):
            pictures.append(picture)
            status.update(f"reading {len(pictures):,} of {len(ids):,} pictures")
    status.clear()
    return pictures


def _render(title: str, shown: Shown, codes: np.ndarray, ids: np.ndarray, pictures: list[Picture]) -> str:
    sheets = make_sheets(pictures)
    data = {
        "bits": shown.index.num_bits,
        "codes": _encode(codes.astype("<u4")),
        "ids": _encode(ids.astype("<i4")),
        "names": [shown.name(number) for number in ids.tolist()],
        "sizes": _encode(sheets.sizes),
        "cell": sheets.cell,
        "columns": COLUMNS,
        "perSheet": PER_SHEET,
    }
    parts = [f"<p>{html.escape(_describe(shown, len(ids)))}</p>", page.read_asset("explore.html")]
    parts += [f'<img class="sheet" alt="" hidden src="{url}">' for url in sheets.urls]
    text = json.dumps(data).replace("<", "\\u003c")  # nothing in it ends the element or begins a comment
    parts.append(f'<script id="data" type="application/json">{text}</script>')
    return page.render_page(title, parts, style=page.read_asset("explore.css"), script=page.read_asset("explore.js"))


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _describe(shown: Shown, count: int) -> str:
    """Says how many items a page shows, and how many it leaves out."""
    total = int(shown.index.num_items)
    text = f"{count:,} items on codes of {shown.index.num_bits} bits."
    return text if count == total else f"{text} They are the first by id; {total - count:,} of {total:,} are left out."


def _report(output: str, shown: Shown, pictures: list[Picture], count: int, size: int) -> None:
    print(f"{escape_name(output)}: {_describe(shown, count)} {size / 1e6:.1f} MB")
    missing = sum(picture is None for picture in pictures)
    if shown.picture is not None and missing:
        print(f"{missing:,} pictures are gone or can't be read; their items are shown by name")
