"""Values of decoded pixels: every mode of Pillow has one meaning, in files and in shards alike."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from kdx.data.encoded import ImageFiles
from kdx.data.sets import DataError
from kdx.data.sources.decode import MAX_PIXELS, decode, decode_content


def content(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(values: np.ndarray, declared: tuple[float, float] | None = None, kind: int = 12) -> bytes:
    """A TIFF file of one channel, with the range of its values if one is declared; 12 is the type of a double."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    for tag, value in zip((340, 341), declared or (), strict=False):
        tags.tagtype[tag] = kind
        tags[tag] = value
    return content(Image.fromarray(values), "TIFF", tiffinfo=tags)


EIGHT = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("factor", [257, 256])  # both are in use for 8 bits stored in 16
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_give_the_pixels_of_their_eight_bit_twin(kind, factor, channels):
    twin = decode_content(content(Image.fromarray(EIGHT), "PNG"), channels)
    wide = decode_content(content(Image.fromarray(EIGHT.astype(np.uint16) * factor), kind), channels)
    assert np.array_equal(twin, wide)
    assert np.array_equal(twin[..., 0], EIGHT)


def test_every_sixteen_bit_value_gives_its_high_byte():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256)
    for kind in ("PNG", "TIFF", "PPM"):
        assert np.array_equal(decode_content(content(Image.fromarray(values), kind), 1)[..., 0], expected)


def test_a_portable_graymap_scales_by_the_maximum_that_it_states():
    header = b"P5\n4 1\n1023\n"
    pixels = decode_content(header + struct.pack(">4H", 0, 341, 682, 1023), 1)
    assert pixels.ravel().tolist() == [0, 85, 170, 255]


def test_floats_are_read_in_their_declared_range_else_from_zero_to_one():
    values = np.array([[0, 0.2, 0.5, 1]], np.float32)
    assert decode_content(tiff(values), 1).ravel().tolist() == [0, 51, 128, 255]
    assert decode_content(tiff(values * 40 - 20, (-20, 20)), 1).ravel().tolist() == [0, 51, 128, 255]
    assert decode_content(tiff(values * 0.5, (0, 1)), 3)[..., 2].ravel().tolist() == [0, 26, 64, 128]


@pytest.mark.parametrize("values", [[0, 255], [-0.1, 0.5], [0, 1.01], [0, float("nan")], [0, float("inf")]])
def test_floats_of_unknown_range_are_refused(values):
    with pytest.raises(ValueError, match="exceed 0 to 1, and the file declares no range|are not finite"):
        decode_content(tiff(np.array([values], np.float32)), 1)


def test_integers_need_a_declared_range():
    values = np.array([[0, 1000, 2000, 4000]], np.int32)
    with pytest.raises(ValueError, match="32-bit integers without a declared range"):
        decode_content(tiff(values), 3)
    assert decode_content(tiff(values, (0, 4000), 4), 1).ravel().tolist() == [0, 64, 128, 255]
    with pytest.raises(ValueError, match="from 0 to 4000 exceed its declared range"):
        decode_content(tiff(values, (0, 3999), 4), 1)


def srgb(lightness: float, a: float, b: float) -> list[float]:
    """CIELAB (D50) to sRGB, 0 to 255, by the formulas of CIE 15 and IEC 61966-2-1, with Bradford's adaptation."""
    fy = (lightness + 16) / 116
    f = np.array([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1.0, 0.82521]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(np.array(matrix) @ xyz, 0, 1)
    return (255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)).tolist()


def test_lab_is_read_as_colours():
    stored = [(0, 0, 0), (50, 0, 0), (100, 0, 0), (60, 30, -20), (70, -25, 40), (40, 10, 45)]
    raw = bytes(v for L, a, b in stored for v in (round(L * 2.55), a % 256, b % 256))
    file = content(Image.frombytes("LAB", (len(stored), 1), raw), "TIFF")
    pixels = decode_content(file, 3)[0]
    for (L, a, b), pixel in zip(stored, pixels, strict=True):
        assert np.abs(pixel - np.array(srgb(round(L * 2.55) / 2.55, a, b))).max() <= 2
    grey = decode_content(file, 1)[0, :, 0]
    assert np.abs(grey - pixels @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_light_without_ink(kind):
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (100, 50, 0, 60)]
    for ink in inks:
        options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        pixel = decode_content(content(Image.new("CMYK", (8, 8), ink), kind, **options), 3)[4, 4]
        expected = [(255 - c) * (255 - ink[3]) / 255 for c in ink[:3]]
        assert np.abs(pixel - np.array(expected)).max() <= 2


def test_palettes_give_their_colours_and_alpha_is_dropped():
    colours = np.random.default_rng(0).integers(0, 256, (4, 3), dtype=np.uint8)
    indexed = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    indexed.putpalette(colours.tobytes())
    for file in (content(indexed, "PNG"), content(indexed, "PNG", transparency=2), content(indexed, "GIF")):
        assert np.array_equal(decode_content(file, 3)[0], colours)
    rgba = np.concatenate([colours, [[0], [1], [128], [255]]], axis=1).astype(np.uint8)[None]
    assert np.array_equal(decode_content(content(Image.fromarray(rgba), "PNG"), 3)[0], colours)
    assert np.array_equal(decode_content(content(Image.fromarray(rgba[..., 2:]), "PNG"), 1)[0, :, 0], colours[:, 2])


def test_orientation_is_not_applied():
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    assert np.array_equal(decode_content(content(Image.fromarray(pixels), "PNG", exif=turned), 3), pixels)


def test_an_animation_gives_its_first_picture():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = content(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode_content(file, 3)[0, 0].tolist() == [255, 0, 0]


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_flipped_bit_or_a_gap_in_a_png_is_refused_or_changes_nothing():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (13, 11, 3), dtype=np.uint8)
    whole = content(Image.fromarray(pixels), "PNG", compress_level=0)
    refused = 0
    for place in range(len(whole)):
        flipped, cut = bytearray(whole), bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        del cut[place : place + 1 + rng.integers(20)]
        for damaged in (flipped, cut):
            try:
                found = decode_content(bytes(damaged), 3)
            except Exception:
                refused += 1
            else:
                assert np.array_equal(found, pixels), place
    assert refused > 1.8 * len(whole)


@pytest.mark.parametrize("workers", [False, True])
def test_what_claims_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch, workers):
    from kdx.data.sources import decode as module

    monkeypatch.setattr(module, "get_worker_info", lambda: object() if workers else None)
    jpeg = bytearray(content(Image.new("L", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    for file in (png(200_000, 200_000, zlib.compress(bytes(1000))), bytes(jpeg)):
        with warnings.catch_warnings(), pytest.raises(Exception, match=str(MAX_PIXELS)):
            warnings.simplefilter("error")
            decode_content(file, 3)


def test_what_is_no_regular_file_is_refused_at_once_and_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    os.symlink("/nowhere", tmp_path / "broken.png")
    (tmp_path / "folder.png").mkdir()
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(2**40)
    (tmp_path / "empty.png").touch()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match=rf"^cannot read the image {path}: [^\n]+$"):
            ImageFiles([str(path)]).decode(0, 3)


def test_a_format_that_runs_programs_is_refused(tmp_path):
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="no image of a known format"):
        decode(str(tmp_path / "script.png"), 3)
