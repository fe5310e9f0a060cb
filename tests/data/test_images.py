"""Every kind of file that a stranger may call an image."""

import contextlib
import errno
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from csvi.data.images import MOST_PIXELS, BadImage, TroubleReading, load_image, read_image, size_of

PERSON = np.random.default_rng(0).integers(256, size=(24, 12, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def person(kind, **options):
    return encoded(Image.fromarray(PERSON), kind, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width=60_000, height=60_000):
    """A PNG of a few bytes that says it is of so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


REFUSED = {
    "is empty": b"",
    "is not an image": b"person, 12 years, walking",
    f"is of more than {MOST_PIXELS:,} pixels, or says so": bomb(),
    "is of more than 89,478,485 pixels": bomb(10_000, 9_000),  # where Pillow only warns
    "is of 1x1 pixels: at least 8 are needed": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "cannot be decoded: image file is truncated": person("JPEG")[:-200],
    "cannot be decoded: ": person("PNG")[:300],
    "has pixels that are neither of 8 bits nor of 16": encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
}


@pytest.mark.parametrize("trouble", REFUSED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refused(trouble, tmp_path):
    file = tmp_path / "Jürgen 1.jpg"
    file.write_bytes(REFUSED[trouble])
    with pytest.raises(BadImage) as refusal:
        read_image(file, 24, 12, "RGB")
    assert str(refusal.value).startswith(f"cannot read the image {file}: it {trouble}")
    assert refusal.value.trouble.startswith(trouble)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "JPEG2000"])  # Ghostscript would run PostScript
def test_what_else_pillow_would_open_is_no_image(kind, tmp_path):
    (tmp_path / "a.jpg").write_bytes(person(kind))
    for read in (size_of, lambda file: load_image(file, "RGB")):
        with pytest.raises(BadImage, match="is not an image"):
            read(tmp_path / "a.jpg")


def test_two_pictures_as_telephones_write_them(tmp_path):
    (tmp_path / "a.jpg").write_bytes(person("MPO", save_all=True, append_images=[Image.fromarray(PERSON)]))
    assert size_of(tmp_path / "a.jpg") == load_image(tmp_path / "a.jpg", "RGB").size == (12, 24)


def test_a_truncated_image_has_a_whole_header(tmp_path):
    (tmp_path / "a.jpg").write_bytes(person("JPEG")[:-200])
    assert size_of(tmp_path / "a.jpg") == (12, 24)


def test_no_file(tmp_path):
    with pytest.raises(BadImage, match="is not there") as refusal:
        load_image(tmp_path / "a.jpg", "RGB")
    assert refusal.value.missing
    (tmp_path / "b.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(BadImage, match="is a link to nothing"):
        load_image(tmp_path / "b.jpg", "RGB")
    (tmp_path / "c.jpg").symlink_to("c.jpg")
    with pytest.raises(BadImage, match="cannot be read: Too many levels of symbolic links"):
        load_image(tmp_path / "c.jpg", "RGB")
    os.mkfifo(tmp_path / "d.jpg")
    with pytest.raises(BadImage, match="cannot be read: Is a pipe or a device"):
        load_image(tmp_path / "d.jpg", "RGB")
    (tmp_path / "e.jpg").mkdir()
    with pytest.raises(BadImage, match="cannot be read: Is a directory"):
        load_image(tmp_path / "e.jpg", "RGB")


def test_no_permission(tmp_path, monkeypatch):
    def deny(file, **_):  # the tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied", str(file))

    (tmp_path / "a.png").write_bytes(person("PNG"))
    monkeypatch.setattr(Image, "open", deny)
    with pytest.raises(BadImage, match="cannot be read: Permission denied"):
        load_image(tmp_path / "a.png", "RGB")


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("BMP", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_pixels_as_they_are(kind, mode, tmp_path):
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(PERSON).convert(mode), kind, **options))
    assert (read_image(tmp_path / "a", 24, 12, "RGB") == PERSON).all()


def test_cmyk_is_converted(tmp_path):
    flat = Image.new("RGB", (12, 24), (200, 60, 20))
    (tmp_path / "a.jpg").write_bytes(encoded(flat.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(read_image(tmp_path / "a.jpg", 24, 12, "RGB").astype(int) - (200, 60, 20)).max() < 6


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    deep = np.arange(24 * 12, dtype=np.uint16).reshape(24, 12) * 200
    Image.fromarray(deep).save(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", 24, 12, "L")
    assert (grey == deep >> 8).all()
    assert (read_image(tmp_path / "a.png", 24, 12, "RGB") == grey[:, :, None]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "turned"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)]
)
def test_exif_rotation(kind, orientation, turned, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    half = np.zeros((24, 12, 3), np.uint8)
    half[:12, :6] = 255  # one corner is bright
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(half), kind, exif=exif))
    image = np.asarray(load_image(tmp_path / "a", "L"))
    assert image.shape[::-1] == size_of(tmp_path / "a")
    assert np.abs(image.astype(int) - turned(half)[:, :, 0]).mean() < 5


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("read", [size_of, lambda file: load_image(file, "RGB")])
def test_trouble_that_is_not_the_images_fault(tmp_path, monkeypatch, number, read):
    def fail(file, **_):
        raise OSError(number, os.strerror(number), str(file))

    (tmp_path / "a.png").write_bytes(person("PNG"))
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(TroubleReading, match=f"a.png: it could not be read this time: {os.strerror(number)}$"):
        read(tmp_path / "a.png")


def test_too_little_memory_is_not_the_images_fault(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(person("PNG"))
    raised = iter([MemoryError(), OSError("out of memory error when reading image file")])  # as Pillow has it
    monkeypatch.setattr(Image.Image, "convert", lambda *_: (_ for _ in ()).throw(next(raised)))
    for expected in (MemoryError, TroubleReading):
        with pytest.raises(expected):
            load_image(tmp_path / "a.png", "RGB")


def test_a_reason_is_never_empty(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError

    (tmp_path / "a.png").write_bytes(person("PNG"))
    monkeypatch.setattr(Image.Image, "getexif", fail)
    for read in (size_of, lambda file: load_image(file, "RGB")):
        with pytest.raises(BadImage, match=r"cannot be decoded: ValueError$"):
            read(tmp_path / "a.png")


def oriented(orientation):
    """Files of every kind that say in every way how they are to be turned."""
    image = Image.fromarray(PERSON)
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = exif.tobytes()
    xmp = f'<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    profile, text = PngInfo(), PngInfo()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n")
    text.add_itxt("XML:com.adobe.xmp", xmp)
    png, end = encoded(image, "PNG")[:-12], encoded(image, "PNG")[-12:]
    yield from (encoded(image, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF", "WEBP"))
    yield from (encoded(image, kind, xmp=xmp.encode()) for kind in ("JPEG", "WEBP"))
    yield encoded(image, "TIFF", tiffinfo={700: xmp.encode()})
    yield from (encoded(image, "PNG", pnginfo=info) for info in (profile, text))
    yield png + chunk(b"eXIf", raw.removeprefix(b"Exif\0\0")) + end
    yield png + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()) + end


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8, 9])
def test_the_size_is_that_of_the_image_however_it_is_turned(orientation, tmp_path):
    for content in oriented(orientation):
        (tmp_path / "a").write_bytes(content)
        size = size_of(tmp_path / "a")
        assert size == load_image(tmp_path / "a", "RGB").size
        assert size == ((24, 12) if orientation in (5, 6, 7, 8) else (12, 24))


def test_a_png_is_decoded_for_its_size_only_if_it_must_be(tmp_path, monkeypatch):
    decoded = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda image: decoded.append(image) or load(image))
    plain, *_, behind = person("PNG"), *oriented(6)
    for content in (plain, behind):
        (tmp_path / "a.png").write_bytes(content)
        size_of(tmp_path / "a.png")
        assert len(decoded) == (content == behind)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4),
)
def test_damaged_files_are_read_or_refused(tmp_path, kind, edits):
    content = person(kind)
    for place, length, instead in edits:
        at = round(place * len(content))
        content = content[:at] + instead + content[at + length :]
    file = tmp_path / "a"
    file.write_bytes(content)
    for read in (size_of, lambda file: load_image(file, "RGB"), lambda file: load_image(file, "L")):
        with contextlib.suppress(BadImage):
            read(file)
