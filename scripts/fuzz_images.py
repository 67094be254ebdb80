"""Read damaged and odd images: each gives right pixels, or an error with the file's name.

    python scripts/fuzz_images.py --count 10000 --seed 0

Images of every format and mode are written, and most are then damaged: cut, extended, or with bytes flipped, zeroed,
swapped or repeated. Each is read as from a folder, in the main process or as a worker does. A whole image must give the
pixels of another conversion, and a damaged PNG those of the undamaged one. Other formats have no
checksum, so a damaged file must give what Pillow reads from it. Errors must be of kdx, in one line, with the name.
"""

import argparse
import io
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdx.data.encoded import ImageFiles
from kdx.data.sets import DataError
from kdx.data.sources import decode

KINDS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("L", "P", "RGB"),
    "ppm": ("1", "L", "RGB", "I;16"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"),
    "webp": ("RGB", "RGBA"),
}
FORMATS = {"jpg": "JPEG", "tif": "TIFF"}
PILLOW = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "MPO", "DIB")


def drawn(mode: str, rng: np.random.Generator) -> Image.Image:
    """A random image of a mode, smooth enough for lossy formats."""
    size = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16))
    if mode == "I":
        return Image.fromarray(rng.integers(-9, 99, size, dtype=np.int32))
    if mode == "F":
        return Image.fromarray(rng.random(size, dtype=np.float32) * rng.choice([1, 1, 255]))
    if mode == "LAB":
        return Image.frombytes(
            "LAB", (size[1], size[0]), rng.integers(0, 256, 3 * size[0] * size[1], dtype=np.uint8).tobytes()
        )
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return image.quantize(7) if mode == "P" else image.convert(mode)


def expected(content: bytes, channels: int) -> np.ndarray:
    """Pixels by a conversion of its own [H, W, channels]. Raises where the image has no defined range or is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(content), formats=PILLOW)
        if image.mode == "LAB":
            image = image.convert("RGB")
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            values = np.asarray(image).astype(np.int64) // 256
            return np.stack([values] * channels, axis=-1).astype(np.uint8)
        if image.mode in ("I", "F"):
            values = np.asarray(image, dtype=np.float64)
            if image.mode == "I" or not np.all((values >= 0) & (values <= 1)):
                raise ValueError("no defined range")
            return np.stack([np.rint(values * 255)] * channels, axis=-1).astype(np.uint8)
        pixels = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]))
        return pixels if pixels.ndim == 3 else pixels[..., None]


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one kind of damage."""
    data, size = bytearray(content), len(content)
    at = int(rng.integers(size)) if rng.random() < 0.7 else int(rng.integers(min(size, 64)))
    length = int(rng.integers(1, 33))
    match rng.integers(7):
        case 0:
            return bytes(data[:at])
        case 1:
            data += rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        case 2:
            data[at] ^= 1 << int(rng.integers(8))
        case 3:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 4:
            data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]), dtype=np.uint8).tobytes()
        case 5:
            del data[at : at + length]
        case _:
            data[at:at] = data[at : at + length]
    return bytes(data)


def outcome(read: Callable[[], np.ndarray]) -> tuple[np.ndarray | None, Exception | None]:
    try:
        return read(), None
    except Exception as error:
        return None, error


def judge(path: Path, content: bytes, whole: bytes, suffix: str, channels: int) -> tuple[str, str]:
    """The outcome for one image, and the fault in it; "" if there is none."""
    pixels, error = outcome(lambda: ImageFiles([str(path)]).decode(0, channels))
    if error is not None:
        text = str(error)
        if not isinstance(error, DataError) or str(path) not in text or "\n" in text or "0x" in text:
            return "refused", f"error without the name: {type(error).__name__}: {text}"
        if content == whole and outcome(lambda: expected(whole, channels))[0] is not None:
            return "refused", f"a whole image is refused: {text}"
        return "refused", ""
    assert pixels is not None
    of = whole if content == whole or suffix == "png" else content
    right, _ = outcome(lambda: expected(of, channels))
    if right is None or not np.array_equal(right, pixels):
        return "read", "wrong pixels"
    first, _ = outcome(lambda: expected(whole, channels))
    same = first is not None and np.array_equal(first, pixels)
    return ("read, right" if same else "read, as Pillow reads the damaged file"), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="images")
    parser.add_argument("--seed", type=int, default=0, help="chooses images and damages")
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    kinds = [(suffix, mode) for suffix, modes in KINDS.items() for mode in modes]
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    start, slowest = time.monotonic(), 0.0
    as_worker: Any = lambda: object()  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.count):
            suffix, mode = kinds[number % len(kinds)]
            file = io.BytesIO()
            drawn(mode, rng).save(file, FORMATS.get(suffix, suffix.upper()))
            whole = file.getvalue()
            content = whole if rng.random() < 0.2 else damaged(whole, rng)
            path = Path(folder) / f"{number}.{suffix}"
            path.write_bytes(content)
            decode.get_worker_info = as_worker if rng.random() < 0.5 else lambda: None
            before = time.monotonic()
            said, fault = judge(path, content, whole, suffix, int(rng.choice([1, 3])))
            slowest = max(slowest, time.monotonic() - before)
            counts[f"{'whole' if content == whole else 'damaged'} {suffix}: {said}"] += 1
            if fault:
                wrong.append(f"{number} {suffix} {mode}: {fault}")
            path.unlink()
    for what, count in sorted(counts.items()):
        print(f"{count:6} {what}")
    print(f"{asked.count} images in {time.monotonic() - start:.0f} s, slowest {slowest:.2f} s, {len(wrong)} wrong")
    for line in wrong[:20]:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
