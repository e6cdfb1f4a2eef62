"""One image file of unknown origin to pixels: few formats, a limit of our own, and a rule for every kind of pixel.

The first frame counts, upright as its EXIF tag says. Transparent pixels are seen on white. Greys of 16 bits keep their
upper byte; numbers without a set range (Pillow's modes I and F) are stretched from the least to the greatest. All else
is what Pillow's conversion to RGB gives. What a flipped byte does to the pixels of a JPEG, nobody can tell.
"""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

try:
    from PIL import ExifTags, Image, UnidentifiedImageError
except ModuleNotFoundError as missing:
    if missing.name != "PIL":
        raise
    Image = None  # type: ignore[assignment]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
PIXEL_LIMIT = 50_000_000


class ImageError(ValueError):
    """A file is no image that can be taken in; the message says why."""


def check_pillow() -> None:
    """Raises unless Pillow is there."""
    if Image is None:
        raise ImportError("images need Pillow: pip install 'jaxhash[images]'")


@contextmanager
def careful_pillow() -> Iterator[None]:
    """Inside it, in all threads, Pillow's warning of a bomb is an error, and its complaints of odd tags are silent."""
    check_pillow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_image(path: str | os.PathLike[str], side: int, known: bytes | None = None) -> tuple[bytes, np.ndarray | None]:
    """Reads an image file.

    Args:
        path: the file.
        side: the image is stretched to a square of so many pixels a side.
        known: a digest; a file that has it need not be decoded again.

    Returns:
        The sha256 of the file, and its pixels uint8 `[side, side, 3]`, or `None` if the digest is the known one.

    Raises:
        ImageError: this is no regular file, or no image that can be taken in.
    """
    with _opened(path) as (file, image):
        digest = _digest(file)
        if digest == known:
            return digest, None
        return digest, np.asarray(_upright(image, side, stretch=True))


def thumbnail(path: str | os.PathLike[str], side: int) -> bytes:
    """An image file made small, its longer side at most `side`, as the bytes of a PNG; raises `ImageError`."""
    with _opened(path) as (_, image):
        buffer = io.BytesIO()
        _upright(image, side, stretch=False).save(buffer, "PNG")
        return buffer.getvalue()


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[IO[bytes], Any]]:
    """A file and the image in it, of which only the head is read so far. What Pillow stumbles over is an `ImageError`.

    It raises nearly anything: OSError, SyntaxError, struct.error, IndexError, MemoryError, ...
    """
    try:
        # Asked before it is opened: a FIFO would wait for a writer, and to open some devices does something.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ImageError("not a regular file")
        with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ImageError(f"{image.width}x{image.height} pixels are more than the limit of {PIXEL_LIMIT:,}")
            yield file, image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a format that is taken in ({', '.join(FORMATS)})") from None
    except OSError as error:
        raise ImageError(f"{type(error).__name__}: {error.strerror or error}") from error
    except Exception as error:
        raise ImageError(f"{type(error).__name__}: {error}") from error


def _digest(file: IO[bytes]) -> bytes:
    """The sha256 of a whole file, which is left where it stood."""
    place = file.tell()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
    file.seek(place)
    return digest


def _upright(image: Any, side: int, *, stretch: bool) -> Any:
    """An RGB image made small, turned as its EXIF tag says.

    Pillow's own `exif_transpose` also writes the tags anew, and fails where cameras wrote them wrong.
    """
    image.draft(None, (2 * side, 2 * side))  # a JPEG is then decoded at a fraction of its size
    image.load()
    small = _rgb(image)
    if stretch:
        small = small.resize((side, side), Image.Resampling.BILINEAR)
    else:
        small.thumbnail((side, side))
    turn = _turns().get(_orientation(image))
    return small if turn is None else small.transpose(turn)


def _orientation(image: Any) -> Any:
    """The EXIF orientation of an image, if it has one; what can't be read is none, for the pixels may still be good."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _turns() -> dict[Any, Any]:
    """What brings an image upright, by its EXIF orientation; 1 stands upright already."""
    turn = Image.Transpose
    return {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }


def _rgb(image: Any) -> Any:
    """Any mode to RGB, by the rule at the top; Pillow would cut greys of more than 8 bits off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _stretched(values: np.ndarray) -> np.ndarray:
    """Numbers to bytes, the least to 0 and the greatest to 255; all equal ones to 0."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError("holds NaN, or numbers too large")
    scale = 255 / (high - low) if high > low else 0.0
    return np.round((values - np.float64(low)) * scale).astype(np.uint8)
