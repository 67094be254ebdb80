"""Decoding of image files: Pillow's pixels, by the fastest decoder that produces them.

Every mode becomes 8-bit grey or RGB by one of these rules; an image that none of them fits is refused.

- 8 bits, 1 bit, palettes, HSV and YCbCr: as Pillow converts them; grey is ITU-R BT.601 luma.
- 16 bits: the high byte, as Pillow reads 16-bit RGB. So 0 to 65535 becomes 0 to 255.
- 32-bit integers: only with a range that the TIFF file declares (SMinSampleValue, SMaxSampleValue).
- Floats: the declared range, else 0 to 1 if all values lie there.
- LAB: to sRGB by its colours, not by its numbers. CMYK: Pillow's formula, without the file's colour profile.
- Alpha is dropped, as torchvision's ImageFolder drops it: a transparent pixel shows the colour that is stored below.
- EXIF orientation is not applied, as in torchvision. An animation or a document gives its first picture.
"""

import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from kdx.core.files import read_file

if TYPE_CHECKING:
    from PIL import Image

JPEG = b"\xff\xd8\xff"  # Pillow's signature of a JPEG; torchvision checks two bytes only
PNG = b"\x89PNG\r\n\x1a\n"
AS_STORED = 0  # torchvision's mode for "no colour conversion"
MAX_PIXELS = 178_956_970  # Pillow's limit, above which it refuses a file as a decompression bomb
MAX_BYTES = 2**31  # no image within that limit is larger
COMMON = ("JPEG", "PNG", "BMP", "GIF", "PPM")  # Pillow loads these plugins first
RARE = ("MPO", "DIB", "TIFF", "WEBP", "AVIF")  # others can run programs, such as Ghostscript
MINIMUM, MAXIMUM = 340, 341  # TIFF's SMinSampleValue and SMaxSampleValue


def decode(path: str, channels: int) -> np.ndarray:
    """Decode a file to grey or RGB pixels; see the rules above.

    Worker processes decode JPEG with torchvision, which gives the same pixels in less CPU time: for 64x64 (100 files
    of Tiny-ImageNet) 1.6 and 2.3 times as fast in two measurements, for 640x480 (COCO) 1.06 and 1.2 times. Pillow
    decodes all other formats. PNG would gain 1.3 times for 64x64 but 3 % for 640x480; the two decoders convert
    transparency, palettes and 16 bits differently; and libpng prints warnings about valid files.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 [H, W, channels].

    Raises:
        Exception: The file is missing or damaged, or no rule fits it. A decoder can raise any class.
    """
    return decode_content(read_file(path, MAX_BYTES), channels)


def decode_content(content: bytes, channels: int) -> np.ndarray:
    """Like `decode`, from the contents of a file."""
    if get_worker_info() is not None:
        pixels = _by_torchvision(content, channels)
        if pixels is not None:
            return pixels
    return _by_pillow(content, channels)


def reason(error: Exception) -> str:
    """A decoder's error in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(said.split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _by_pillow(content: bytes, channels: int) -> np.ndarray:
    if content.startswith(PNG):
        _check_png(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they name no file
        with _opened(content) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS}")
            tiles: Any = getattr(image, "tile", ())
            stored = sum((right - left) * (low - top) for left, top, right, low in (tile[1] for tile in tiles))
            if image.format == "TIFF" and stored < image.width * image.height:  # Pillow leaves the rest black
                raise ValueError(f"it is damaged: it claims {image.width} x {image.height} pixels and holds fewer")
            pixels = _pixels(image, channels)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _opened(content: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its messages name no file
    try:
        return Image.open(BytesIO(content), formats=COMMON)
    except UnidentifiedImageError:
        Image.init()
    try:
        return Image.open(BytesIO(content), formats=[name for name in RARE if name in Image.OPEN])
    except UnidentifiedImageError:
        raise ValueError("its content is damaged or no image of a known format") from None


def _pixels(image: "Image.Image", channels: int) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3]."""
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _scaled(image)
        return grey if channels == 1 else np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return np.asarray(image.convert("RGB" if channels == 3 else "L"))


def _scaled(image: "Image.Image") -> np.ndarray:
    """Grey pixels of more than 8 bits as uint8 [H, W]."""
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return (values >> 8).astype(np.uint8)
    declared = _declared(image)
    low, high = (float(v) for v in declared or (0, 1))
    if not np.isfinite(values).all():
        raise ValueError("some of its pixels are not finite")
    if declared is None and image.mode == "I":
        raise ValueError("32-bit integers without a declared range have no defined white; convert it to 8 or 16 bits")
    least, most = float(values.min()), float(values.max())
    if not low <= least <= most <= high:
        where = "its declared range" if declared else "0 to 1, and the file declares no range"
        raise ValueError(f"its values from {least:.6g} to {most:.6g} exceed {where}; convert it to 8 or 16 bits")
    return np.rint((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)


def _declared(image: "Image.Image") -> tuple[float, float] | None:
    """The range of values that a TIFF file declares."""
    tags: Any = getattr(image, "tag_v2", {})
    if MINIMUM not in tags or MAXIMUM not in tags:
        return None
    low, high = (float(np.ravel(tags[tag])[0]) for tag in (MINIMUM, MAXIMUM))
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


def _check_png(content: bytes) -> None:
    """Raise ValueError if a chunk differs from its checksum; Pillow does not check those of the pixels."""
    at = len(PNG)
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"it is damaged or cut short: the chunk at byte {at} exceeds the file")
        if zlib.crc32(memoryview(content)[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise ValueError(f"it is damaged: the chunk at byte {at} differs from its checksum")
        if kind == b"IEND":
            return
        at = end + 4


def _by_torchvision(content: bytes, channels: int) -> np.ndarray | None:
    """Decode a JPEG; None if Pillow must decode it or report the error."""
    decoder = _decoder() if content.startswith(JPEG) and _is_small(content) else None
    if decoder is None:
        return None
    try:
        with _silence():
            # a copy, since torch warns about read-only memory
            found = decoder(torch.from_numpy(np.frombuffer(content, np.uint8).copy()), AS_STORED)
            pixels = found.permute(1, 2, 0).numpy()
    except RuntimeError:
        return None
    if pixels.shape[2] == channels:
        return pixels
    return pixels.repeat(channels, axis=2) if pixels.shape[2] == 1 else None


def _is_small(content: bytes) -> bool:
    """Whether a JPEG's header is plain and claims no more pixels than the limit, which torchvision does not check."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = (int.from_bytes(content[i : i + 2], "big") for i in (at + 5, at + 7))
            return height * width <= MAX_PIXELS
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return False


@cache
def _decoder() -> Callable[[Tensor, int], Tensor] | None:
    """torchvision's decoder, loaded without importing torchvision, which takes seconds; None if unavailable."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    try:
        torch.ops.load_library(str(Path(found.origin).with_name("image.so")))
        return torch.ops.image.decode_jpeg.default
    except (AttributeError, OSError):
        return None


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress a C library's messages about damaged files on standard error; for single-threaded processes only."""
    null, error = _descriptors()
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(error, 2)


@cache
def _descriptors() -> tuple[int, int]:
    return os.open(os.devnull, os.O_WRONLY), os.dup(2)
