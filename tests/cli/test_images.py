"""Untrusted image files: what is refused, and golden pixels."""

import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxhash.cli import images
from jaxhash.cli.images import ImageError, guard_pillow, make_thumbnail, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True)
def careful():
    with guard_pillow():
        yield


def corners(path):
    """The colors of the four quarters of a picture: top left, top right, bottom left, bottom right."""
    _, pixels = read_image(path, 2)
    return [tuple(color) for color in pixels.reshape(4, 3).tolist()]


def assert_all(path, color, tolerance=0):
    _, pixels = read_image(path, 4)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - color).max() <= tolerance


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_head(width, height):
    """The head of a PNG file of this size, without pixels."""
    head = png_chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (60000, 60000, "DecompressionBombError"),
        (12000, 12000, "12000x12000 pixels are more than the limit"),  # Pillow only warns
        (8000, 8000, "8000x8000 pixels are more than the limit of 50,000,000"),  # Pillow says nothing
    ],
)
def test_images_of_too_many_pixels_are_refused_undecoded(tmp_path, width, height, reason):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_head(width, height))
    with pytest.raises(ImageError):
        read_image(path, 4)  # loads what Pillow loads once
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ImageError, match=reason):
        read_image(path, 4)
    assert time.process_time() - start < 0.1
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_the_limit_itself_is_taken(tmp_path, monkeypatch):
    Image.new("L", (5, 4), 7).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "PIXEL_LIMIT", 20)
    assert_all(tmp_path / "a.png", 7)
    monkeypatch.setattr(images, "PIXEL_LIMIT", 19)
    with pytest.raises(ImageError, match="5x4 pixels"):
        read_image(tmp_path / "a.png", 4)


def test_a_large_jpeg_is_taken_unless_it_is_progressive(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PIXEL_LIMIT", 100 * 100)
    for name, size, options in [
        ("a.jpg", (500, 500), {}),
        ("b.jpg", (500, 500), {"progressive": True}),
        ("c.jpg", (901, 900), {}),
    ]:
        Image.new("RGB", size, RED).save(tmp_path / name, quality=95, **options)
    assert_all(tmp_path / "a.jpg", RED, tolerance=3)
    with pytest.raises(ImageError, match="500x500 pixels are more than the limit of 10,000"):
        read_image(tmp_path / "b.jpg", 4)
    with pytest.raises(ImageError, match="113x113 pixels are more than the limit of 10,000"):  # an eighth of its side
        read_image(tmp_path / "c.jpg", 4)
    monkeypatch.setattr(images, "JPEG_PIXEL_LIMIT", 900 * 900)
    with pytest.raises(ImageError, match="901x900 pixels are more than the limit of 810,000"):
        read_image(tmp_path / "c.jpg", 4)


def test_a_file_of_too_many_bytes_is_refused(tmp_path, monkeypatch):
    Image.new("L", (5, 4), 7).save(tmp_path / "a.png")
    size = (tmp_path / "a.png").stat().st_size
    monkeypatch.setattr(images, "BYTE_LIMIT", size)
    assert_all(tmp_path / "a.png", 7)
    monkeypatch.setattr(images, "BYTE_LIMIT", size - 1)
    with pytest.raises(ImageError, match=f"{size} bytes are more than the limit of {size - 1}"):
        read_image(tmp_path / "a.png", 4)


def test_the_limit_of_pillow_is_restored(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 123)
    with guard_pillow():
        assert Image.MAX_IMAGE_PIXELS == images.JPEG_PIXEL_LIMIT
    assert Image.MAX_IMAGE_PIXELS == 123


def test_heic_files_are_read_where_pillow_heif_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC files need pillow-heif")
    heif.from_pillow(Image.new("RGB", (64, 64), GREEN)).save(tmp_path / "a.heic", quality=-1)
    assert_all(tmp_path / "a.heic", GREEN, tolerance=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(tmp_path, kind):
    buffer, path = io.BytesIO(), tmp_path / "cut"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, kind)
    content = buffer.getvalue()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError, match=r"OSError: .*truncated"):
            read_image(path, 8)


def test_a_flipped_byte_of_a_jpeg_changes_its_digest(tmp_path):
    buffer, path = io.BytesIO(), tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    path.write_bytes(content)
    digest, pixels = read_image(path, 8)
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    other, changed = read_image(path, 8)
    assert changed.shape == pixels.shape
    assert other != digest  # a second build takes it for another image


def gray(values, dtype):
    return Image.fromarray(np.asarray(values, dtype))


def palette():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*WHITE, *BLUE])
    return image


def transparent_palette():
    image = palette()
    image.info["transparency"] = 1
    return image


def transparent_color():
    """An RGB image with one transparent color."""
    image = Image.new("RGB", (4, 4), RED)
    image.info["transparency"] = RED
    return image


def moving(path):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("kind", "image", "color"),
    [
        ("PNG", Image.new("1", (4, 4), 1), WHITE),
        ("PNG", Image.new("L", (4, 4), 77), (77, 77, 77)),
        ("PNG", Image.new("LA", (4, 4), (0, 255)), (0, 0, 0)),
        ("PNG", Image.new("LA", (4, 4), (0, 0)), WHITE),
        ("PNG", palette(), BLUE),
        ("PNG", Image.new("RGB", (4, 4), (1, 2, 3)), (1, 2, 3)),
        ("PNG", Image.new("RGBA", (4, 4), (255, 0, 0, 0)), WHITE),
        ("PNG", Image.new("RGBA", (4, 4), (255, 0, 0, 51)), (255, 204, 204)),
        ("PNG", gray(np.full((4, 4), 0x12FF), np.uint16), (0x12,) * 3),
        ("TIFF", gray(np.full((4, 4), 0xFF00), np.uint16), WHITE),
        ("TIFF", Image.new("CMYK", (4, 4), (0, 255, 255, 0)), RED),
        ("BMP", Image.new("RGB", (4, 4), GREEN), GREEN),
        ("WEBP", Image.new("RGBA", (4, 4), (0, 0, 0, 0)), WHITE),
        ("GIF", Image.new("L", (4, 4), 9), (9, 9, 9)),
        ("PNG", transparent_palette(), WHITE),
        ("PNG", transparent_color(), WHITE),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_images_of_each_mode_have_golden_pixels(tmp_path, kind, image, color):
    image.save(tmp_path / "a", kind)
    assert_all(tmp_path / "a", color)


@pytest.mark.parametrize("color", [RED, (10, 200, 30)])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpegs_of_either_color_space_are_read(tmp_path, mode, color):
    Image.new("RGB", (9, 7), color).convert(mode).save(tmp_path / "a.jpg", quality=100)
    assert_all(tmp_path / "a.jpg", color, tolerance=2)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_without_a_range_are_stretched(tmp_path, dtype):
    gray([[-1000, 1000], [1000, 0]], dtype).save(tmp_path / "a.tif")
    assert corners(tmp_path / "a.tif") == [(0, 0, 0), WHITE, WHITE, (128, 128, 128)]
    gray(np.full((2, 2), 5), dtype).save(tmp_path / "flat.tif")
    assert_all(tmp_path / "flat.tif", (0, 0, 0))


def test_floats_that_are_no_numbers_are_refused(tmp_path):
    gray([[0, np.nan], [1, 2]], np.float32).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="NaN"):
        read_image(tmp_path / "a.tif", 2)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    moving(tmp_path / "a.gif")
    assert_all(tmp_path / "a.gif", RED)


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
        (9, [RED, GREEN, BLUE, WHITE]),  # no such
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_images_are_turned_upright(tmp_path, kind, orientation, shown):
    image = Image.fromarray(np.array([RED, GREEN, BLUE, WHITE], np.uint8).reshape(2, 2, 3))
    tags = Image.Exif()
    tags[0x0112] = orientation
    image.save(tmp_path / "a", kind, exif=tags, **({"lossless": True} if kind == "WEBP" else {}))
    assert corners(tmp_path / "a") == shown


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "PCX"])
def test_other_formats_are_refused_whatever_the_name(tmp_path, kind):
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.png", kind)
    with pytest.raises(ImageError, match="not an image of a format that is taken in"):
        read_image(tmp_path / "a.png", 4)


@pytest.mark.parametrize("tags", [b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_images_with_broken_tags_are_read(tmp_path, tags):
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.jpg", exif=tags, quality=100)
    assert_all(tmp_path / "a.jpg", RED, tolerance=2)


def test_a_fits_file_is_refused(tmp_path):
    cards = [
        b"SIMPLE  =                    T",
        b"BITPIX  =                    8",
        b"NAXIS   =                    0",
        b"END",
    ]
    (tmp_path / "a.png").write_bytes(b"".join(card.ljust(80) for card in cards).ljust(2880))
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path / "a.png", 4)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(4096)])
def test_other_content_than_images_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path / "a.jpg", 4)


def test_fifos_devices_and_folders_are_never_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    for name in ("fifo.png", "zero.png", "folder.png"):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path / name, 4)
    with pytest.raises(ImageError, match="OSError: Too many levels of symbolic links"):
        read_image(tmp_path / "loop.png", 4)
    with pytest.raises(ImageError, match="FileNotFoundError"):
        read_image(tmp_path / "nothing.png", 4)


def test_a_file_with_the_known_digest_is_not_decoded(tmp_path):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    digest, pixels = read_image(tmp_path / "a.png", 4)
    assert pixels.shape == (4, 4, 3)
    assert read_image(tmp_path / "a.png", 4, {digest}) == (digest, None)
    assert read_image(tmp_path / "a.png", 4, {bytes(32)})[1] is not None


def test_a_thumbnail_keeps_its_proportions_and_is_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (400, 100), RED).save(tmp_path / "a.jpg", exif=tags)
    small = Image.open(io.BytesIO(make_thumbnail(tmp_path / "a.jpg", 40)))
    assert (small.format, small.mode, small.size) == ("PNG", "RGB", (10, 40))


def test_a_large_jpeg_keeps_its_colors_in_place(tmp_path):
    quarters = np.array([RED, GREEN, BLUE, WHITE], np.uint8).reshape(2, 2, 3).repeat(512, 0).repeat(512, 1)
    Image.fromarray(quarters).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    _, pixels = read_image(tmp_path / "a.jpg", 32)
    found = pixels[[8, 8, 24, 24], [8, 24, 8, 24]].astype(int)
    assert np.abs(found - [RED, GREEN, BLUE, WHITE]).max() < 8
