"""Reading of untrusted image files: a few formats, a limit of pixels, and a rule for each mode of pixels.

The first frame is read and turned upright by its EXIF tag. Transparent pixels are blended with white. 16-bit grays keep
their upper byte. Values without a fixed range (Pillow's modes I and F) are stretched from minimum to maximum. All other
modes are converted to RGB by Pillow. A damaged JPEG may decode without an error, to other pixels.

HEIC files are read if pillow-heif is installed.
"""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

try:
    from PIL import ExifTags, Image, UnidentifiedImageError
except ModuleNotFoundError as missing:
    if missing.name != "PIL":
        raise
    Image = None  # type: ignore[assignment]

try:
    import pillow_heif
except ImportError:
    pillow_heif = None

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", *(() if pillow_heif is None else ("HEIF",)))
# A JPEG is decoded at down to an eighth of its side, so its own pixels cost only time, unless it is progressive: then
# all its coefficients are in memory at once.
PIXEL_LIMIT, JPEG_PIXEL_LIMIT = 50_000_000, 250_000_000
BYTE_LIMIT = 2**29  # of a file
# Modes whose pixels can be averaged as they are; of transparent ones Pillow weighs colors by opacity.
AVERAGED_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")

# The transposition that turns an image upright, by its EXIF orientation; 1 is upright already.
TRANSPOSITIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class ImageError(ValueError):
    """A file can't be read as an image; the message says why."""


def check_pillow() -> None:
    """Raises unless Pillow is installed."""
    if Image is None:
        raise ImportError("images need Pillow: pip install 'jaxhash[images]'")


@contextmanager
def guard_pillow() -> Iterator[None]:
    """Silences Pillow's warnings and raises its limit to that of this module, in all threads."""
    check_pillow()
    if pillow_heif is not None:
        pillow_heif.register_heif_opener()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, JPEG_PIXEL_LIMIT
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_image(
    path: str | os.PathLike[str], side: int, known: Container[bytes] = ()
) -> tuple[bytes, np.ndarray | None]:
    """Reads an image file, once.

    Args:
        path: the file.
        side: the image is stretched to a square of this many pixels a side.
        known: digests; a file that has one of them is not decoded.

    Returns:
        The sha256 of the file, and its pixels uint8 `[side, side, 3]`, or `None` if the digest is known.

    Raises:
        ImageError: the path is no regular file, or the file can't be read as an image.
    """
    content = _read_content(path)
    digest = hashlib.sha256(content).digest()
    if digest in known:
        return digest, None
    with _explain_errors(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return digest, np.asarray(_shrink_upright(image, side, stretch=True))


def make_thumbnail(path: str | os.PathLike[str], side: int) -> bytes:
    """Shrinks an image file until its longer side is at most `side`: the bytes of a PNG. Raises `ImageError`."""
    content, buffer = _read_content(path), io.BytesIO()
    with _explain_errors(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        _shrink_upright(image, side, stretch=False).save(buffer, "PNG")
    return buffer.getvalue()


def _read_content(path: str | os.PathLike[str]) -> bytes:
    """Reads a file, once its first bytes have shown that it is an image within the limits; raises `ImageError`."""
    with _explain_errors():
        # Checked before opening: a FIFO would wait for a writer, and opening some devices has effects.
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        with Path(path).open("rb") as file:
            with Image.open(file, formats=FORMATS) as image:
                shrinks = image.format in ("JPEG", "MPO") and "progressive" not in image.info
                _check_size(image, JPEG_PIXEL_LIMIT if shrinks else PIXEL_LIMIT)
            if status.st_size > BYTE_LIMIT:
                raise ImageError(f"{status.st_size:,} bytes are more than the limit of {BYTE_LIMIT:,}")
            file.seek(0)
            return file.read(BYTE_LIMIT)


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Makes an `ImageError` of every error.

    Pillow raises nearly anything: OSError, SyntaxError, struct.error, IndexError, MemoryError, ...
    """
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a format that is taken in ({', '.join(FORMATS)})") from None
    except OSError as error:
        raise ImageError(f"{type(error).__name__}: {error.strerror or error}") from error
    except Exception as error:
        raise ImageError(f"{type(error).__name__}: {error}") from error


def _check_size(image: Any, limit: int) -> None:
    """Raises if an image has too many pixels at the size at which it will be decoded."""
    if image.width * image.height > limit:
        raise ImageError(f"{image.width}x{image.height} pixels are more than the limit of {limit:,}")


def _shrink_upright(image: Any, side: int, *, stretch: bool) -> Any:
    """Shrinks an image and turns it upright by its EXIF tag, in RGB.

    Pillow's `exif_transpose` also rewrites the tags, and fails on malformed ones.
    """
    image.draft(None, (2 * side, 2 * side))  # decodes a JPEG at a fraction of its size
    _check_size(image, PIXEL_LIMIT)
    image.load()
    # Colors are converted last: all pixels of a large image in another mode would take several times its memory.
    small = image if image.mode in AVERAGED_MODES and "transparency" not in image.info else _convert_to_rgb(image)
    if stretch:
        small = small.resize((side, side), Image.Resampling.BILINEAR)
    else:
        small = small.copy()
        small.thumbnail((side, side))
    small = _convert_to_rgb(small)
    name = TRANSPOSITIONS.get(_read_orientation(image))
    return small if name is None else small.transpose(Image.Transpose[name])


def _read_orientation(image: Any) -> Any:
    """Reads the EXIF orientation; `None` if there is none or its tags are malformed: the pixels may still be good."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _convert_to_rgb(image: Any) -> Any:
    """Converts any mode to RGB. Pillow alone would clip grays of more than 8 bits at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch_to_bytes(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _stretch_to_bytes(values: np.ndarray) -> np.ndarray:
    """Maps values linearly to bytes, minimum to 0 and maximum to 255; a constant becomes 0."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError("holds NaN, or numbers too large")
    scale = 255 / (high - low) if high > low else 0.0
    return np.round((values - np.float64(low)) * scale).astype(np.uint8)
