"""Every kind of file that a stranger may call an image."""

import contextlib
import errno
import io
import os
import struct
import zlib

import numpy as np
import PIL
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from csvi.data.images import (
    MOST_PIXELS,
    BadImage,
    Levels,
    TroubleReading,
    deep_values,
    header_of,
    load_image,
    read_image,
    size_of,
    upright_image,
)

PERSON = np.random.default_rng(0).integers(256, size=(24, 12, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def person(kind, **options):
    return encoded(Image.fromarray(PERSON), kind, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


THERMAL = Image.fromarray(np.arange(7500, 7500 + 24 * 12, dtype=np.uint16).reshape(24, 12))
"""An image of more than 8 bits."""


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
    "has more than 8 bits a pixel: say which values are black and white": encoded(THERMAL, "PNG"),
}


@pytest.mark.parametrize("trouble", REFUSED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refused(trouble, tmp_path):
    file = tmp_path / "Jürgen 1.jpg"
    file.write_bytes(REFUSED[trouble])
    with pytest.raises(BadImage) as refusal:
        read_image(file, 24, 12)
    assert str(refusal.value).startswith(f"cannot read the image {file}: it {trouble}")
    assert refusal.value.trouble.startswith(trouble)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TGA", "JPEG2000"])  # Ghostscript would run PostScript
def test_what_else_pillow_would_open_is_no_image(kind, tmp_path):
    (tmp_path / "a.jpg").write_bytes(person(kind))
    for read in (size_of, load_image):
        with pytest.raises(BadImage, match="is not an image"):
            read(tmp_path / "a.jpg")


def test_two_pictures_as_telephones_write_them(tmp_path):
    (tmp_path / "a.jpg").write_bytes(person("MPO", save_all=True, append_images=[Image.fromarray(PERSON)]))
    assert size_of(tmp_path / "a.jpg") == load_image(tmp_path / "a.jpg").size == (12, 24)


def test_a_truncated_image_has_a_whole_header(tmp_path):
    (tmp_path / "a.jpg").write_bytes(person("JPEG")[:-200])
    assert size_of(tmp_path / "a.jpg") == (12, 24)


def test_no_file(tmp_path):
    with pytest.raises(BadImage, match="is not there") as refusal:
        load_image(tmp_path / "a.jpg")
    assert refusal.value.missing
    (tmp_path / "b.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(BadImage, match="is a link to nothing"):
        load_image(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").symlink_to("c.jpg")
    with pytest.raises(BadImage, match="cannot be read: Too many levels of symbolic links"):
        load_image(tmp_path / "c.jpg")
    os.mkfifo(tmp_path / "d.jpg")
    with pytest.raises(BadImage, match="cannot be read: Is a pipe or a device"):
        load_image(tmp_path / "d.jpg")
    (tmp_path / "e.jpg").mkdir()
    with pytest.raises(BadImage, match="cannot be read: Is a directory"):
        load_image(tmp_path / "e.jpg")


def test_no_permission(tmp_path, monkeypatch):
    def deny(file, **_):  # the tests may run as root, whom no permission stops
        raise PermissionError(13, "Permission denied", str(file))

    (tmp_path / "a.png").write_bytes(person("PNG"))
    monkeypatch.setattr(Image, "open", deny)
    with pytest.raises(BadImage, match="cannot be read: Permission denied"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("BMP", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_pixels_as_they_are(kind, mode, tmp_path):
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(PERSON).convert(mode), kind, **options))
    assert (read_image(tmp_path / "a", 24, 12) == PERSON).all()


def test_cmyk_is_converted(tmp_path):
    flat = Image.new("RGB", (12, 24), (200, 60, 20))
    (tmp_path / "a.jpg").write_bytes(encoded(flat.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(read_image(tmp_path / "a.jpg", 24, 12).astype(int) - (200, 60, 20)).max() < 6


def test_levels_map_values_linearly_and_clip_the_others():
    values = np.array([[0, 7499, 7500, 7503], [7509, 7510, 7600, 65_535]], np.uint16)
    expected = [[0, 0, 0, 76], [230, 255, 255, 255]]  # 255 * 3 / 10 = 76.5, to even; 255 * 9 / 10 = 229.5
    assert Levels(7500, 7510).applied_to(values).tolist() == expected
    assert Levels(-1, 1).applied_to(np.float32([-2, -1, 0, 0.5])).tolist() == [0, 0, 128, 191]


def test_the_whole_range_of_16_bits_is_the_upper_8_bits_within_rounding():
    values = np.arange(65_536, dtype=np.uint16)
    assert np.abs(Levels(0, 65_535).applied_to(values).astype(int) - (values >> 8)).max() == 1


DEEP = np.arange(7500, 7500 + 24 * 12).reshape(24, 12)


def netpbm(magic, greatest, channels=1):
    """PGM or PPM of DEEP, as text (P2) or bytes."""
    values = DEEP.repeat(channels, 1)
    data = " ".join(map(str, values.ravel())).encode() if magic == b"P2" else values.astype(">u2").tobytes()
    return b"%s\n# thermal\n12 24\n%d\n" % (magic, greatest) + data


def png_of_16_bits(values):
    """A PNG of 16 bits a colour, (H, W, 3), which Pillow reads and does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


EVERY_DEPTH = {
    "PNG of 16 bits": encoded(Image.fromarray(DEEP.astype(np.uint16)), "PNG"),
    "TIFF of 16 bits": encoded(Image.fromarray(DEEP.astype(np.uint16)), "TIFF"),
    "compressed TIFF": encoded(Image.fromarray(DEEP.astype(np.uint16)), "TIFF", compression="tiff_lzw"),
    "big-endian TIFF": encoded(Image.frombytes("I;16B", (12, 24), DEEP.astype(">u2").tobytes()), "TIFF"),
    "TIFF of 32 bits": encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    "TIFF of floats": encoded(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
    "PGM of 16 bits": netpbm(b"P5", 65_535),
    "PGM of 14 bits": netpbm(b"P5", 16_383),  # which Pillow scales to 16
    "PGM as text": netpbm(b"P2", 16_383),
    "PFM": encoded(Image.fromarray(DEEP.astype(np.float32)), "PPM"),
}


@pytest.mark.parametrize("kind", EVERY_DEPTH)
def test_values_of_more_than_8_bits_are_those_of_the_file(kind, tmp_path):
    (tmp_path / "a").write_bytes(EVERY_DEPTH[kind])
    assert header_of(tmp_path / "a") == ((12, 24), True, False)
    assert (deep_values(tmp_path / "a") == DEEP).all()
    image = read_image(tmp_path / "a", 24, 12, Levels(7500, 7755))
    assert (image == np.minimum(DEEP - 7500, 255)[:, :, None]).all()


YCBCR = pytest.param("YCbCr", marks=pytest.mark.skipif(int(PIL.__version__[:2]) < 13, reason="Pillow 12 reads none"))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", YCBCR])
def test_levels_change_no_image_of_8_bits(mode, tmp_path):
    Image.fromarray(PERSON).convert("L" if mode == "LA" else "RGB").convert(mode).save(tmp_path / "a.tif")
    plain = read_image(tmp_path / "a.tif", 24, 12)
    assert (read_image(tmp_path / "a.tif", 24, 12, Levels(100, 110)) == plain).all()
    assert not header_of(tmp_path / "a.tif").deep
    assert deep_values(tmp_path / "a.tif") is None


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_of_16_bits_a_colour_the_upper_8_are_read(kind, tmp_path):
    values = (PERSON.astype(np.uint16) << 8) + 77
    ppm = b"P6\n12 24\n65535\n" + values.astype(">u2").tobytes()
    (tmp_path / "a").write_bytes(png_of_16_bits(values) if kind == "PNG" else ppm)
    assert header_of(tmp_path / "a") == ((12, 24), False, True)
    assert np.abs(read_image(tmp_path / "a", 24, 12).astype(int) - PERSON).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value, tmp_path):
    values = DEEP.astype(np.float32)
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    for read in (deep_values, load_image, lambda file: load_image(file, Levels(0, 1))):
        with pytest.raises(BadImage, match="it has pixels that are not finite"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_a_tiff_of_any_depth_is_turned(kind, compression, tmp_path):
    values, exif = (DEEP % 256 if kind == np.uint8 else DEEP).astype(kind), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.tif", exif=exif, compression=compression)
    assert header_of(tmp_path / "a.tif").size == (24, 12)
    assert (np.asarray(upright_image(tmp_path / "a.tif")) == np.rot90(values, -1)).all()


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_of_several_pages_the_first_is_read(kind, tmp_path):
    first, second = Image.new("RGB", (12, 24), "red"), Image.new("RGB", (12, 24), "blue")
    first.save(
        tmp_path / "a", kind, save_all=True, append_images=[second], **{"lossless": True} if kind == "WEBP" else {}
    )
    assert (read_image(tmp_path / "a", 24, 12) == (255, 0, 0)).all()


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_netpbm_header_can_promise_anything(magic, tmp_path):
    for size in (b"12 24", b"9000 9000", b"60000 60000", b"-12 24", b"0 9", b"99999999999 9", b"# no end"):
        for greatest in (b"1", b"255", b"9999", b"65535", b"0", b"65536", b"nan", b"-1"):
            (tmp_path / "a").write_bytes(b"%s\n%s\n%s\n1 0 1 0 1" % (magic, size, greatest))
            with pytest.raises(BadImage):
                load_image(tmp_path / "a", Levels(0, 255))


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
    image = np.asarray(load_image(tmp_path / "a").convert("L"))
    assert image.shape[::-1] == size_of(tmp_path / "a")
    assert np.abs(image.astype(int) - turned(half)[:, :, 0]).mean() < 5


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("read", [size_of, load_image])
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
            load_image(tmp_path / "a.png")


def test_a_reason_is_never_empty(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError

    (tmp_path / "a.png").write_bytes(person("PNG"))
    monkeypatch.setattr(Image.Image, "getexif", fail)
    for read in (size_of, load_image):
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
        assert size == load_image(tmp_path / "a").size
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", *EVERY_DEPTH]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4),
)
def test_damaged_files_are_read_or_refused(tmp_path, kind, edits):
    content = EVERY_DEPTH.get(kind) or person(kind)
    for place, length, instead in edits:
        at = round(place * len(content))
        content = content[:at] + instead + content[at + length :]
    file = tmp_path / "a"
    file.write_bytes(content)
    for read in (header_of, load_image, upright_image, deep_values, lambda file: load_image(file, Levels(0, 9))):
        with contextlib.suppress(BadImage):
            read(file)
