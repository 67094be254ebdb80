"""Decoding in a worker process gives Pillow's pixels and Pillow's errors, for all formats."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdx.data.sources import decode as module
from kdx.data.sources.decode import decode

REFUSALS = (OSError, SyntaxError, ValueError)
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (38, 45, 4), dtype=np.uint8)
RGB = Image.fromarray(RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((45, 38))
TURNED = Image.Exif()
TURNED[0x0112] = 6  # EXIF's orientation: a quarter turn

KINDS = {
    "420": (RGB, "jpg", dict(subsampling=2)),
    "444": (RGB, "jpg", dict(subsampling=0)),
    "grey": (RGB.convert("L"), "jpg", {}),
    "progressive": (RGB, "jpeg", dict(progressive=True)),
    "noise": (Image.fromarray(NOISE[..., :3]), "JPEG", dict(quality=30)),
    "turned": (RGB, "jpg", dict(exif=TURNED)),
    "cmyk": (RGB.convert("CMYK"), "jpg", {}),
    "rgb png": (RGB, "png", {}),
    "rgba png": (Image.fromarray(NOISE), "png", {}),
    "grey and alpha png": (Image.fromarray(NOISE).convert("LA"), "png", {}),
    "palette png": (RGB.quantize(17), "png", dict(transparency=3)),
    "1 bit png": (RGB.convert("1"), "png", {}),
    "a png by a wrong name": (RGB, "jpg", dict(format="PNG")),
}


def by_pillow(path, channels: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert({1: "L", 3: "RGB"}[channels])).reshape(image.height, image.width, channels)


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    RGB.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def in_worker(monkeypatch):
    monkeypatch.setattr(module, "get_worker_info", object)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_pillows(tmp_path, in_worker, kind: str, channels: int):
    image, suffix, options = KINDS[kind]
    path = tmp_path / f"image.{suffix}"
    image.save(path, **options)
    pixels = decode(str(path), channels)
    assert pixels.dtype == np.uint8 and pixels.shape == (38, 45, channels)
    assert np.array_equal(pixels, by_pillow(path, channels))


@pytest.mark.parametrize("kind", ["420", "444", "grey", "progressive", "noise", "turned"])
def test_torchvision_reads_jpeg_and_nothing_else(tmp_path, in_worker, monkeypatch, kind: str):
    image, suffix, options = KINDS[kind]
    path = tmp_path / f"image.{suffix}"
    image.save(path, **options)
    monkeypatch.setattr(Image, "open", None)
    assert decode(str(path), 3).shape == (38, 45, 3)
    monkeypatch.setattr(module, "get_worker_info", lambda: None)
    with pytest.raises(TypeError):  # the main process uses Pillow
        decode(str(path), 3)


@pytest.mark.parametrize("options", [{}, dict(progressive=True), dict(restart_marker_blocks=2)])
def test_damage_is_refused_where_pillow_refuses_it_and_else_read_alike(tmp_path, in_worker, capfd, options):
    whole, path = jpeg(**options), tmp_path / "image.jpg"
    damaged = [whole[:length] for length in range(0, len(whole), 7)] + [
        whole[:-1],
        whole[:2] + b"?" + whole[3:],
        whole + b"more",
    ]
    for _ in range(100):
        flipped = bytearray(whole)
        flipped[RNG.integers(2, len(whole))] = RNG.integers(256)
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            expected = by_pillow(path, 3)
        except REFUSALS as error:
            refused += 1
            with pytest.raises(REFUSALS) as found:
                decode(str(path), 3)
            known = "its content is damaged or no image of a known format"
            assert str(found.value) == (known if "cannot identify" in str(error) else str(error))
        else:
            assert np.array_equal(decode(str(path), 3), expected)
    assert len(whole) // 7 <= refused < len(damaged) - 20
    assert capfd.readouterr().err == ""


def test_what_is_no_file_is_refused(tmp_path, in_worker):
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(OSError):
            decode(str(path), 3)


def test_torchvision_itself_is_not_imported(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg())
    program = (
        "import sys\nfrom kdx.data.sources import decode\ndecode.get_worker_info = object\n"
        f"assert decode.decode({str(path)!r}, 3).shape == (38, 45, 3)\n"
        "assert 'torchvision' not in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)


def test_without_torchvisions_library_pillow_reads(tmp_path, in_worker, monkeypatch):
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg())
    module._decoder.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    try:
        assert np.array_equal(decode(str(path), 3), by_pillow(path, 3))
    finally:
        module._decoder.cache_clear()
