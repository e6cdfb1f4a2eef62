"""Sprite sheets: many small pictures in one image, as a data URL."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

try:
    from PIL import Image
except ModuleNotFoundError as missing:
    if missing.name != "PIL":
        raise
    Image = None  # type: ignore[assignment]

PER_SHEET, COLUMNS = 1000, 32
# Aim for the average picture. In base64 it takes a third more, so that 5,000 pictures stay below 10 MB.
BYTES = 1400
QUALITIES = (85, 75, 65, 55, 45, 35, 25)
BLOCK = 16  # pixels a side of the squares that JPEG compresses


class Sheets(NamedTuple):
    """Pictures, each at the upper left of its cell: the cells of a sheet are filled row by row."""

    urls: list[str]
    sizes: np.ndarray  # uint8 [n, 2], width and height of each picture; zero where there is none
    cell: int  # the side of a cell in pixels


def decode_picture(content: bytes) -> np.ndarray:
    """Decodes an image file, which is trusted, to uint8 `[h, w, 3]`."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def encode_picture(picture: np.ndarray) -> bytes:
    """Encodes a picture, uint8 `[h, w, 3]`, as a PNG, in grays if it has no others."""
    return _encode(Image.fromarray(_drop_colors(picture)), "PNG")


def shrink_picture(picture: np.ndarray, side: int) -> np.ndarray:
    """Shrinks a picture, uint8 `[h, w, 3]`, until its longer side is at most `side` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    return np.asarray(image)


def make_sheets(pictures: Sequence[np.ndarray | None]) -> Sheets:
    """Draws pictures, uint8 `[h, w, 3]` of at most 255 pixels a side, on one sheet for each `PER_SHEET` of them."""
    sizes = np.array([(0, 0) if picture is None else picture.shape[1::-1] for picture in pictures], np.uint8)
    cell = -(-int(sizes.max(initial=0)) // BLOCK) * BLOCK
    starts = range(0, len(pictures) if cell else 0, PER_SHEET)
    urls = [_encode_sheet(_draw_sheet(pictures[start : start + PER_SHEET], cell)) for start in starts]
    return Sheets(urls, sizes, cell)


def _draw_sheet(pictures: Sequence[np.ndarray | None], cell: int) -> np.ndarray:
    """Draws pictures in the cells of one sheet. Edges are repeated to the end of the cell, or JPEG would blur them."""
    sheet = np.zeros((-(-len(pictures) // COLUMNS), cell, COLUMNS, cell, 3), np.uint8)
    for place, picture in enumerate(pictures):
        if picture is not None:
            height, width, _ = picture.shape
            filled = np.pad(picture, ((0, cell - height), (0, cell - width), (0, 0)), mode="edge")
            sheet[place // COLUMNS, :, place % COLUMNS] = filled
    return sheet.reshape(-1, COLUMNS * cell, 3)


def _encode_sheet(sheet: np.ndarray) -> str:
    """Encodes a sheet as a PNG if it is gray and small enough, otherwise as a JPEG that is small enough."""
    limit = BYTES * PER_SHEET
    pixels = _drop_colors(sheet)
    image = Image.fromarray(pixels)
    if pixels.ndim == 2:
        content = _encode(image, "PNG")
        if len(content) <= limit:
            return _make_url("png", content)
    for quality in QUALITIES:
        content = _encode(image, "JPEG", quality=quality)
        if len(content) <= limit:
            break
    return _make_url("jpeg", content)


def _drop_colors(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 `[h, w]` if all pixels `[h, w, 3]` are gray, otherwise the pixels."""
    return np.ascontiguousarray(pixels[..., 0]) if (pixels == pixels[..., :1]).all() else pixels


def _encode(image: Any, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _make_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
