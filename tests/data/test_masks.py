"""Masks as people have them: which are read, by which setting, and which are refused with which way out."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from csvi.data.images import BadImage
from csvi.data.masks import Mask, judge_masks, read_mask

SIZE = 64, 128
COLOURS = [0, 0, 0, 128, 0, 0, 255, 0, 0, 0, 85, 0, 170, 0, 51, 255, 85, 0, 0, 0, 85, 0, 119, 221, 85, 85, 0, 0, 85, 85]
"""Palette that SCHP and others write their labels in; the first ten."""


def smooth(n=0):
    """A person, smooth at its edges: a grey mask as it should be. Another `n` stands elsewhere."""
    image = Image.new("L", (4 * SIZE[0], 4 * SIZE[1]))
    draw, x = ImageDraw.Draw(image), 8 * n
    draw.ellipse([80 + x, 20, 150 + x, 130], fill=255)
    draw.rectangle([50 + x, 120, 180 + x, 340], fill=255)
    draw.rectangle([60 + x, 330, 100 + x, 490], fill=255)
    draw.rectangle([130 + x, 330, 170 + x, 490], fill=255)
    return image.resize(SIZE, Image.Resampling.BOX)


def exact(n=0):
    return smooth(n).point(lambda value: 255 * (value > 127))


def array(image):
    return np.asarray(image).copy()


def labels(n, kinds=18):
    """Part labels from 2, in stripes, as a person is made of parts."""
    stripes = (np.arange(SIZE[1]) // 7 % kinds + 2).astype(np.uint8)[:, None]
    return Image.fromarray(stripes * (array(exact(n)) > 127))


def in_palette(image, colours=COLOURS):
    image.putpalette(colours)
    return image


def person_as_one(n):
    return Image.fromarray(array(exact(n)) // 255)


def photograph(n):
    """Coloured noise on a ramp."""
    noise = np.random.default_rng(n).integers(0, 120, (SIZE[1], SIZE[0], 3))
    return Image.fromarray((noise + np.linspace(20, 130, SIZE[1])[:, None, None]).astype(np.uint8))


def cut_out(n, of=photograph):
    image = of(n)
    image.putalpha(exact(n))
    return image


def on_black(n):
    return Image.composite(photograph(n), Image.new("RGB", SIZE), exact(n))


def inverted(n, of=exact):
    return of(n).point(lambda value: 255 - value)


def tight(n):
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[3:-3, 1 + n % 2 : -1] = 255
    return Image.fromarray(mask)


def within_void(n):
    """Label 1 in a border of 255, which means "ignore": as in Pascal VOC."""
    grown, shrunk = (array(exact(n).filter(kind(5))) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return Image.fromarray(np.where(grown != shrunk, 255, array(person_as_one(n))).astype(np.uint8))


def with_alpha(image, alpha=255):
    return Image.merge("LA", [image, Image.new("L", image.size, alpha)])


def in_doubt(n):
    """The probability of person as a network gives it: soft at the edges and never quite sure."""
    return smooth(n).filter(ImageFilter.GaussianBlur(2)).point(lambda value: int(0.9 * value))


def written(folder, image, kind="png"):
    file = folder / f"{len(list(folder.iterdir()))}.{'tif' if image.mode == 'F' else kind}"
    image.save(file, **({"quality": 75} if kind == "jpg" else {}))
    return file


def judged(folder, make, values=255, kind="png", count=6):
    files = [written(folder, make(n), kind) for n in range(count)]
    return judge_masks({file.name: Mask(file).look() for file in files}, values)


GOOD = {
    "exact": (exact, "png"),
    "smooth at the edges": (smooth, "png"),
    "one bit": (lambda n: exact(n).convert("1"), "png"),
    "JPEG": (exact, "jpg"),
    "smooth JPEG": (smooth, "jpg"),
    "black and white palette": (lambda n: in_palette(person_as_one(n), [0, 0, 0, 255, 255, 255]), "png"),
    "a palette of greys": (lambda n: smooth(n).convert("P"), "png"),
    "RGB": (lambda n: smooth(n).convert("RGB"), "png"),
    "RGB JPEG": (lambda n: smooth(n).convert("RGB"), "jpg"),
    "grey with an alpha that is the same everywhere": (lambda n: with_alpha(smooth(n)), "png"),
    "alpha that agrees with the grey": (lambda n: Image.merge("LA", [smooth(n), smooth(n)]), "png"),
    "16 bits": (lambda n: Image.fromarray(array(exact(n)).astype(np.uint16) * 257), "png"),
    "tight crops": (tight, "png"),
    "probabilities": (in_doubt, "png"),
    "soft": (lambda n: smooth(n).filter(ImageFilter.GaussianBlur(3)), "png"),
    "some of nobody": (lambda n: exact(n) if n % 2 else Image.new("L", SIZE), "png"),
    "one that is white everywhere": (lambda n: exact(n) if n else Image.new("L", SIZE, 255), "png"),
    "one at the side": (lambda n: exact(n) if n else exact(n).transform(SIZE, 0, (1, 0, 40, 0, 1, 0)), "png"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_masks_that_are_right_are_never_refused(kind, tmp_path):
    make, suffix = GOOD[kind]
    assert judged(tmp_path, make, kind=suffix) is None


LABELS = "they look like the part labels of a human parser"
WRITE = "the person written as 255 and all else as 0"
WRONG = {
    "labels in a palette": (lambda n: in_palette(labels(n, 7)), "nonzero", f"{LABELS}, in colours (values 0 to 8)"),
    "labels as greys": (labels, "nonzero", f"{LABELS} (values 0 to 19)"),
    "labels of 16 bits": (
        lambda n: Image.fromarray(array(labels(n)).astype(np.uint16)), "nonzero", f"{LABELS} (values 0 to 19)",
    ),
    "labels of 32 bits": (
        lambda n: Image.fromarray(array(labels(n)).astype(np.float32)), "nonzero", "hold values of more than 16 bits",
    ),
    "labels in colours": (lambda n: in_palette(labels(n, 7)).convert("RGB"), "nonzero", f"{LABELS}, in colours"),
    "labels as greys in RGB": (lambda n: labels(n).convert("RGB"), "nonzero", f"{LABELS} (values 0 to 19)"),
    "0 and 1": (person_as_one, "nonzero", f"{LABELS} (values 0 to 1)"),
    "0 and 1 in a palette": (lambda n: in_palette(person_as_one(n)), "nonzero", "in colours (values 0 to 1)"),
    "inverted": (inverted, 0, "as inverted masks do"),
    "inverted and smooth": (lambda n: inverted(n, smooth), 0, "as inverted masks do"),
    "inverted, in one bit": (lambda n: inverted(n).convert("1"), 0, "as inverted masks do"),
    "cut-outs": (cut_out, "alpha", "they are cut-outs"),
    "cut-outs from black": (lambda n: cut_out(n, on_black), "alpha", "they are cut-outs"),
    "alpha over black": (
        lambda n: Image.merge("LA", [Image.new("L", SIZE), smooth(n)]), "alpha", "they are cut-outs",
    ),
    "cut-outs on black": (on_black, "nonzero", "they look like photographs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_can_be_read_by_a_setting_is_refused_with_it_and_read_with_it(kind, tmp_path):
    make, values, fault = WRONG[kind]
    found = judged(tmp_path, make)
    assert found.startswith(f"need --data.mask_values {values}: ")
    assert fault in found
    files = sorted(tmp_path.iterdir())
    assert files[0].name in found
    assert judge_masks({file: Mask(file).look() for file in files}, values) is None
    if kind == "cut-outs on black":
        return  # of noise, which is black here and there
    for n, file in enumerate(files):
        true = (smooth if kind in ("inverted and smooth", "alpha over black") else exact)(n)
        expected = true.resize((18, 36), Image.Resampling.BILINEAR)
        assert np.array_equal(read_mask(file, 36, 18, values), expected)


NO_WAY = {
    "white everywhere": (lambda n: Image.new("L", SIZE, 255), "png", "they mark a person everywhere"),
    "photographs": (photograph, "jpg", "they look like photographs"),
    "labels within a border of 255": (within_void, "png", LABELS),
    "bright photographs": (lambda n: photograph(n).point(lambda grey: grey + 100), "jpg", "they look like photographs"),
    "grey photographs": (lambda n: photograph(n).convert("L"), "jpg", "they look like photographs"),
}


@pytest.mark.parametrize("kind", NO_WAY)
def test_what_no_setting_reads_is_refused_with_what_is_needed(kind, tmp_path):
    make, suffix, fault = NO_WAY[kind]
    found = judged(tmp_path, make, kind=suffix)
    assert found.startswith(f"need {WRITE}: {fault}")


@pytest.mark.parametrize(
    ("make", "kind", "values", "fault"),
    [
        (smooth, "png", "nonzero", "soft edges"),
        (exact, "jpg", "nonzero", "soft edges"),
        (in_doubt, "png", "nonzero", "soft edges"),
        (exact, "png", 0, "as inverted masks do"),
        (smooth, "jpg", 0, "as inverted masks do"),
        (exact, "png", "alpha", "have no alpha"),
        (lambda n: with_alpha(smooth(n)), "png", "alpha", "an alpha that is the same everywhere"),
    ],
)
def test_a_wrong_setting_for_masks_that_are_right(make, kind, values, fault, tmp_path):
    found = judged(tmp_path, make, values, kind)
    assert found.startswith("need --data.mask_values 255: they ")
    assert fault in found


def test_exact_masks_are_the_same_whether_all_but_0_or_255_is_the_person(tmp_path):
    assert judged(tmp_path, exact, "nonzero") is None


def test_a_tenth_of_labels_among_masks_is_no_chance(tmp_path):
    """Most masks are right, and those of one camera were made by a parser: no setting reads both."""
    found = judged(tmp_path, lambda n: in_palette(labels(n, 7)) if n % 5 == 0 else smooth(n), count=10)
    assert found.startswith(f"need {WRITE}: {LABELS}")


def test_nothing_is_said_of_a_dataset_without_masks_or_of_masks_of_nobody(tmp_path):
    assert judge_masks({}, 255) is None
    assert judged(tmp_path, lambda n: Image.new("L", SIZE)) is None
    assert Mask(tmp_path / "0.png").look().empty >= {255, "nonzero"}


def test_a_mask_without_an_alpha_cannot_be_read_by_it(tmp_path):
    file = written(tmp_path, exact())
    with pytest.raises(BadImage, match=r"0\.png: it has no alpha: give --data\.mask_values 255, or"):
        read_mask(file, 36, 18, "alpha")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_a_grey_mask_is_read_as_an_image_is_whatever_its_mode(mode, tmp_path):
    image = smooth().convert(mode)
    file = written(tmp_path, image, "tif")
    expected = image.convert("L").resize((18, 36), Image.Resampling.BILINEAR)
    assert np.array_equal(read_mask(file, 36, 18, 255), expected)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "I;16"])
def test_damaged_masks_are_read_or_refused(mode, tmp_path):
    image = in_palette(labels(0)) if mode == "P" else smooth().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(array(image).astype(np.uint16) * 257)
    file, random = tmp_path / "a.png", np.random.default_rng(0)
    image.resize((12, 24)).save(file, **({"transparency": bytes(20)} if mode == "P" else {}))
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    read = 0
    for _ in range(100):
        damaged = whole.copy()
        damaged[random.integers(len(whole), size=2)] = random.integers(256, size=2)
        file.write_bytes(damaged.tobytes())
        try:
            Mask(file).look()
            assert all(read_mask(file, 8, 4, values).shape == (8, 4) for values in (255, 0, "nonzero"))
            read += 1
        except BadImage:
            pass
    assert read < 100


def test_colours_that_cannot_be_converted_are_refused(tmp_path):
    Image.new("LAB", SIZE).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=r"a\.tif: it has colours of a kind that no mask is of \(LAB\)$"):
        Mask(tmp_path / "a.tif")


def test_a_transparent_entry_of_a_palette_is_alpha_too(tmp_path):
    file = tmp_path / "a.png"
    in_palette(person_as_one(0)).save(file, transparency=0)
    assert np.array_equal(read_mask(file, *SIZE[::-1], "alpha"), exact())


def test_a_mask_is_turned_upright(tmp_path):
    file, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = 6
    labels(0).save(file, exif=exif)
    assert np.array_equal(read_mask(file, SIZE[0], SIZE[1], "nonzero"), exact().transpose(Image.Transpose.ROTATE_270))


def test_large_masks_are_looked_at_in_part_with_the_same_verdict(tmp_path):
    file = written(tmp_path, smooth().resize((640, 1280)))
    assert judge_masks({"a": Mask(file).look()}, 255) is None
    file = written(tmp_path, in_palette(labels(0, 7).resize((640, 1280), Image.Resampling.NEAREST)))
    assert judge_masks({"a": Mask(file).look()}, 255).startswith("need --data.mask_values nonzero")
