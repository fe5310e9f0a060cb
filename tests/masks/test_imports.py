"""`csvi masks import`: masks that others made, of any names and values, and arrays that name no image."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvi.cli import main
from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.crops import read_crops
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.masks.imports import import_masks
from csvi.masks.make import make_masks, write_mask
from csvi.masks.stacks import Stack, mask_stacks

SIZE = 32, 64
"""Width and height of the images."""
SPLITS = {"train": (11, 3), "val": (7,), "test": (5,)}
CAMERAS = {"rgb": (1, 2, 4, 5), "ir": (3, 6)}


def person(n):
    """A mask (64, 32) bool, a block with a head, which stands elsewhere for every n."""
    mask = np.zeros((64, 32), bool)
    top, left = 4 + n % 7, 4 + n // 7 % 7
    mask[top + 8 : top + 50, left : left + 16] = True
    mask[top : top + 8, left + 5 : left + 11] = True
    return mask


def write(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def root(tmp_path):
    """Four people in SYSU-MM01's layout, two images a camera of coloured noise that no two share."""
    root, rng = tmp_path / "sysu", np.random.default_rng(0)
    for split, identities in SPLITS.items():
        (root / "exp").mkdir(parents=True, exist_ok=True)
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, identities)))
        for identity in identities:
            for camera in range(1, 7):
                for n in (1, 2):
                    pixels = rng.integers(0, 256, (16, 8, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
                    write(root / f"cam{camera}/{identity:04d}/{n:04d}.png", pixels)
    return root


def paths(root):
    return sorted(file.relative_to(root).with_suffix("").as_posix() for file in root.glob("cam*/*/*"))


def masks_like(root, folder, name="{}.png", of=lambda mask: mask.astype(np.uint8) * 255):
    """Write a mask of every image under another name; returns the masks by the image's path without its suffix."""
    masks = {path: person(n) for n, path in enumerate(paths(root))}
    for path, mask in masks.items():
        write(folder / Path(path).parent / name.format(Path(path).name), of(mask))
    return masks


def imported(source, root, out, files="*", layout=None, **data):
    return import_masks(source, out, DataConfig(root=str(root), **data), layout, files)


def pixels_in(out):
    return {
        file.relative_to(out).with_suffix("").as_posix(): np.asarray(Image.open(file)) for file in out.rglob("*.png")
    }


def assert_are(out, masks):
    found = pixels_in(out)
    assert found.keys() == masks.keys()
    for path, mask in masks.items():
        np.testing.assert_array_equal(found[path], mask * np.uint8(255), path)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}_mask.png", "{}.jpg.png", "mask-{}.bmp", "{}.webp", "p.{}(seg).tif"])
@pytest.mark.parametrize("top", ["", "v2/SYSU"])
def test_files_of_other_names_in_a_tree_like_the_images(root, tmp_path, name, top):
    if name.endswith("webp"):
        masks = masks_like(root, tmp_path / "theirs" / top, "{}.png")
        for file in (tmp_path / "theirs").rglob("*.png"):
            Image.open(file).save(file.with_suffix(".webp"), lossless=True)
            file.unlink()
    else:
        masks = masks_like(root, tmp_path / "theirs" / top, name)
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert (len(found.converted), found.new, found.spare, found.unreadable) == (48, 48, [], [])
    assert_are(tmp_path / "out", masks)
    benchmark = read_benchmark(DataConfig(root=str(root), masks=str(tmp_path / "out")))
    assert all(record.mask for split in benchmark.splits.values() for record in split)


def test_a_part_of_the_tree_may_be_given(root, tmp_path):
    masks = masks_like(root, tmp_path / "theirs")
    imported(tmp_path / "theirs/cam4", root, tmp_path / "out")
    assert_are(tmp_path / "out", {path: mask for path, mask in masks.items() if path.startswith("cam4/")})


@pytest.mark.parametrize(
    ("values", "of"),
    [
        ("nonzero", lambda mask: mask.astype(np.uint8)),
        ("nonzero", lambda mask: mask * (np.arange(64) // 8 + 1).astype(np.uint8)[:, None]),
        ("nonzero", lambda mask: np.where(mask[..., None], np.array([0, 85, 128], np.uint8), np.uint8(0))),
        ("alpha", lambda mask: np.dstack([np.full((64, 32, 3), 90, np.uint8), mask * np.uint8(255)])),
        (0, lambda mask: ~mask * np.uint8(255)),
        (255, lambda mask: mask * np.uint16(65535)),
    ],
    ids=["ones", "labels", "colours", "cut-outs", "inverted", "16 bits"],
)
def test_masks_of_other_values_become_255(root, tmp_path, values, of):
    masks = masks_like(root, tmp_path / "theirs", of=of)
    if values != 255:
        with pytest.raises(CsviError, match=f"visible masks need --data.mask_values {values}"):
            imported(tmp_path / "theirs", root, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    imported(tmp_path / "theirs", root, tmp_path / "out", mask_values=values)
    assert_are(tmp_path / "out", masks)


def test_soft_maps_stay_soft_and_take_the_size_of_their_image(root, tmp_path):
    def at_half_size(mask):
        return np.asarray(Image.fromarray(mask * np.uint8(255)).resize((16, 32), Image.Resampling.BOX))

    masks = masks_like(root, tmp_path / "theirs", of=at_half_size)
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert found.resized == 48
    for path, mask in pixels_in(tmp_path / "out").items():
        assert mask.shape == (64, 32)
        assert len(np.unique(mask)) > 2
        assert ((mask > 127) != masks[path]).mean() < 0.05


def test_what_has_no_counterpart_or_cannot_be_read_is_counted(root, tmp_path):
    theirs = tmp_path / "theirs"
    masks_like(root, theirs, "{}_m.png")
    (theirs / "cam1/0003/0001_m.png").unlink()
    shutil.copy(theirs / "cam1/0003/0002_m.png", theirs / "cam1/0003/0009_m.png")
    (theirs / "cam2/0003/0001_m.png").write_bytes(b"no image")
    write(theirs / "cam3/0003/0001_m.png", np.zeros((64, 32), np.uint8))
    found = imported(theirs, root, tmp_path / "out")
    assert {r.path for r in found.images} - {r.path for r in found.converted} == {
        "cam1/0003/0001.png",
        "cam2/0003/0001.png",
    }
    assert found.spare == [str(theirs / "cam1/0003/0009_m.png")]
    (sentence,) = found.unreadable
    assert "cam2/0003/0001_m.png" in sentence
    assert found.empty == 1
    assert len(pixels_in(tmp_path / "out")) == 46


def test_a_name_within_another_name_is_no_mask_of_it(root, tmp_path):
    for name in ("0001_1", "0001_2"):
        shutil.copy(root / "cam1/0003/0001.png", root / f"cam1/0003/{name}.png")
    masks = masks_like(root, tmp_path / "theirs")
    (tmp_path / "theirs/cam1/0003/0001_2.png").rename(tmp_path / "theirs/cam1/0003/0002_1.png")
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert found.spare == [str(tmp_path / "theirs/cam1/0003/0002_1.png")]
    assert_are(tmp_path / "out", {path: mask for path, mask in masks.items() if not path.endswith("0001_2")})


def test_a_name_is_read_as_most_others_are(root, tmp_path):
    shutil.copy(root / "cam1/0003/0001.png", root / "cam1/0003/0001_m.png")
    masks = masks_like(root, tmp_path / "theirs", "{}_m.png")
    imported(tmp_path / "theirs", root, tmp_path / "out")
    assert_are(tmp_path / "out", masks)
    write(tmp_path / "single/cam1/0003/0001_m.png", masks["cam1/0003/0001_m"] * np.uint8(255))
    imported(tmp_path / "single", root, tmp_path / "other")
    assert pixels_in(tmp_path / "other").keys() == {"cam1/0003/0001_m"}


def test_one_name_in_two_unicode_forms_and_a_folder_of_masks_within_theirs(root, tmp_path):
    for n, camera in enumerate(("cam1", "cam3")):
        (root / camera / "0003/0001.png").rename(root / camera / "0003" / ("é.png", "e\u0301.png")[n])
    masks = masks_like(root, tmp_path / "theirs")
    for n, camera in enumerate(("cam1", "cam3")):
        folder = tmp_path / "theirs" / camera / "0003"
        (folder / ("é.png", "e\u0301.png")[n]).rename(folder / ("e\u0301.png", "é.png")[n])
    for _ in range(2):
        found = imported(tmp_path / "theirs", root, tmp_path / "theirs/out")
        assert found.spare == []
    assert_are(tmp_path / "theirs/out", masks)


def test_two_files_for_each_image_are_refused_until_it_is_said_which(root, tmp_path):
    masks = masks_like(root, tmp_path / "theirs", "{}_person.png")
    masks_like(root, tmp_path / "theirs", "{}_bag.png", of=lambda mask: mask[::-1] * np.uint8(255))
    with pytest.raises(CsviError, match=r"may both be the mask of cam1/0003/0001.png: .* --files '\*_mask.png'"):
        imported(tmp_path / "theirs", root, tmp_path / "out")
    imported(tmp_path / "theirs", root, tmp_path / "out", files="*_person.*")
    assert_are(tmp_path / "out", masks)


def test_no_mask_of_any_image_is_one_sentence(root, tmp_path):
    write(tmp_path / "theirs/a/b.png", np.zeros((64, 32), np.uint8))
    with pytest.raises(CsviError, match=r"no mask of any image in .*: found a/b.png where cam1/0003/0001.png"):
        imported(tmp_path / "theirs", root, tmp_path / "out")
    with pytest.raises(CsviError, match="no mask of any image"):
        imported(root, root, tmp_path / "out")
    with pytest.raises(CsviError, match="is not there"):
        imported(tmp_path / "nowhere", root, tmp_path / "out")


def test_crops_that_are_no_dataset_and_masks_among_them(root, tmp_path):
    for camera in root.glob("cam*"):
        camera.rename(root / camera.name.replace("cam", "day"))
    shutil.rmtree(root / "exp")
    masks = {}
    for n, file in enumerate(sorted(root.glob("day*/*/*"))):
        path = file.relative_to(root)
        masks[path.with_suffix("").as_posix()] = person(n)
        write(root / "theirs" / path, person(n) * np.uint8(255))
    for _ in range(2):  # the second time OUT lies among the crops too
        found = imported(root / "theirs", root, root / "out")
        assert len(found.images) == len(found.converted) == 48
    assert_are(root / "out", masks)
    with pytest.raises(CsviError, match="arrays name no images"):
        imported(save(tmp_path / "rgb_mask.npy", np.zeros((48, 64, 32), np.uint8)), root, tmp_path / "o")


# --- again, and killed -----------------------------------------------------------------------------------------------


def test_what_is_there_is_not_written_again_unless_their_file_is_newer(root, tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    masks = masks_like(root, theirs)
    imported(theirs, root, out)
    assert imported(theirs, root, out).new == 0
    changed, gone, empty = theirs / "cam1/0003/0001.png", out / "cam2/0003/0001.png", out / "cam4/0003/0001.png"
    write(changed, np.rot90(person(3), 2) * np.uint8(255))
    os.utime(changed, (time.time() + 5,) * 2)
    gone.unlink()
    empty.write_bytes(b"")  # as a power cut may leave it
    assert imported(theirs, root, out).new == 3
    assert_are(out, masks | {"cam1/0003/0001": np.rot90(person(3), 2)})


def test_masks_of_other_files_of_one_folder_are_refused(root, tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    masks = masks_like(root, theirs, "{}_a.png")
    masks_like(root, theirs, "{}_b.png", of=lambda mask: np.rot90(mask, 2).astype(np.uint8) * 255)
    imported(theirs, root, out, "*_a.png")
    with pytest.raises(CsviError, match=r"was written with visible masks from \*_a\.png, not \*_b\.png: take the same"):
        imported(theirs, root, out, "*_b.png")
    assert_are(out, masks)
    assert imported(theirs, root, out, "*_a.png").new == 0


def test_a_folder_of_other_masks_is_left_alone(root, tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    masks_like(root, theirs)
    with pytest.raises(CsviError, match="holds something else"):
        imported(theirs, root, theirs)
    with pytest.raises(CsviError, match=r"cannot write masks into .*0001.png: Not a directory"):
        imported(theirs, root, theirs / "cam1/0003/0001.png")
    imported(theirs, root, out)
    shutil.copytree(theirs, tmp_path / "others")
    with pytest.raises(
        CsviError, match=r"holds masks by the import of .*theirs, read as 255, not by the import of .*oth"
    ):
        imported(tmp_path / "others", root, out)
    crops = read_crops(DataConfig(root=str(root)))
    with pytest.raises(CsviError, match=r"holds masks by the import of .*theirs, read as 255, not by "):
        make_masks(crops, out, type("Nobody", (), {"name": "nobody"}))
    for text in ("[]", "{", '{"a": 1}'):
        (out / "masks.json").write_text(text)
        with pytest.raises(CsviError, match="holds something else"):
            imported(theirs, root, out)


def test_a_kill_leaves_whole_masks_and_the_same_command_goes_on(root, tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    masks = masks_like(root, theirs)
    script = (
        "import sys, time; import csvi.masks.imports as module; from csvi.cli import main; write = module.write_mask\n"
        "def slowly(mask, file): time.sleep(0.2); write(mask, file)\n"
        "module.write_mask = slowly; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["masks", "import", str(theirs), "--data.root", str(root), "--out", str(out)]
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.DEVNULL) as process:
        deadline = time.time() + 60
        while len(list(out.rglob("*.png"))) < 4 and time.time() < deadline:
            time.sleep(0.01)
        process.kill()
    there = pixels_in(out)
    assert 4 <= len(there) < 48
    assert all((pixels == masks[path] * np.uint8(255)).all() for path, pixels in there.items())
    (out / "cam1/0003").mkdir(parents=True, exist_ok=True)
    (out / "cam1/0003/.0001.png.partial").write_bytes(b"half")
    assert imported(theirs, root, out).new == 48 - len(there)
    assert_are(out, masks)


def test_a_full_disk_is_one_sentence(root, tmp_path, monkeypatch):
    masks_like(root, tmp_path / "theirs")

    def full(mask, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csvi.masks.imports.write_mask", full)
    with pytest.raises(CsviError, match=r"cannot write masks into .*out: No space left on device"):
        imported(tmp_path / "theirs", root, tmp_path / "out")


# --- arrays ----------------------------------------------------------------------------------------------------------


def public_order(root, modality, splits=("train", "val")):
    """The files as pre_process_sysu.py lists them: people by name, then cameras, then files by name."""
    names = [f"{int(i):04d}" for split in splits for i in (root / f"exp/{split}_id.txt").read_text().split(",")]
    files = []
    for name in sorted(names):
        for camera in CAMERAS[modality]:
            folder = root / f"cam{camera}" / name
            files.extend(sorted(map(str, folder.iterdir())))
    return files


def save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, array)
    return file


def images_of(files, size=(24, 48)):
    return np.array([np.asarray(Image.open(file).resize(size, Image.Resampling.LANCZOS)) for file in files])


def public_arrays(root, folder, of=lambda masks: masks.astype(np.uint8) * 255, names=("RGB", "IR"), **options):
    """Write arrays of masks in that order; returns the masks by the image's path without its suffix."""
    masks = {}
    for modality, name in zip(CAMERAS, names, strict=True):
        files = public_order(root, modality, **options)
        own = {
            Path(file).relative_to(root).with_suffix("").as_posix(): person(len(masks) + n)
            for n, file in enumerate(files)
        }
        save(folder / f"train_{name}_img_mask.npy", of(np.array(list(own.values()))))
        masks |= own
    return masks


@pytest.mark.parametrize(
    "of",
    [
        lambda masks: masks.astype(np.uint8) * 255,
        lambda masks: masks,
        lambda masks: masks[..., None].astype(np.float64),
        lambda masks: np.asfortranarray(masks.astype(np.float32) * 255),
        lambda masks: (masks[..., None] * np.array([255, 255, 255])).astype(np.int64),
    ],
    ids=["uint8", "bool", "fractions", "floats", "three channels"],
)
def test_arrays_are_in_the_order_of_public_code(root, tmp_path, of):
    masks = public_arrays(root, tmp_path / "theirs", of)
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert len(masks) == len(found.converted) == 36
    assert_are(tmp_path / "out", masks)
    assert len(found.notes) == 2
    assert all("nothing could be compared with" in note for note in found.notes)


def test_each_array_may_be_given_by_itself(root, tmp_path):
    masks = public_arrays(root, tmp_path / "theirs")
    imported(tmp_path / "theirs/train_RGB_img_mask.npy", root, tmp_path / "out")
    assert len(pixels_in(tmp_path / "out")) == 24
    assert imported(tmp_path / "theirs/train_IR_img_mask.npy", root, tmp_path / "out").new == 12
    assert_are(tmp_path / "out", masks)
    other = shutil.copy(tmp_path / "theirs/train_RGB_img_mask.npy", tmp_path / "theirs/train_RGB_other_mask.npy")
    with pytest.raises(CsviError, match=r"visible masks from train_RGB_img_mask\.npy, not train_RGB_other_mask\.npy: "):
        imported(other, root, tmp_path / "out")


def test_the_name_of_an_array_says_its_modality_as_names_of_folders_do(tmp_path):
    names = {"lwir_mask.npy": Modality.INFRARED, "train-Colour-masks.npy": Modality.VISIBLE}
    for name, modality in names.items():
        (tmp_path / name).touch()
        assert mask_stacks(tmp_path / name) == {modality: tmp_path / name}
    (tmp_path / "rgb_ir_mask.npy").touch()  # both
    with pytest.raises(CsviError, match="does not say whether rgb or ir"):
        mask_stacks(tmp_path / "rgb_ir_mask.npy")


def test_arrays_of_train_alone_are_told_by_their_length(root, tmp_path):
    masks = public_arrays(root, tmp_path / "theirs", splits=("train",))
    imported(tmp_path / "theirs", root, tmp_path / "out")
    assert len(masks) == 24
    assert_are(tmp_path / "out", masks)


def test_arrays_of_another_length_are_refused(root, tmp_path):
    public_arrays(root, tmp_path / "theirs", of=lambda masks: masks[1:])
    with pytest.raises(CsviError, match=r"holds 23 masks, and .* has 24 or 16 visible images to train on"):
        imported(tmp_path / "theirs", root, tmp_path / "out")


@pytest.mark.parametrize("place", ["theirs", "sysu", ""])
def test_an_array_of_images_shows_that_the_order_is_right(root, tmp_path, place):
    masks = public_arrays(root, tmp_path / "theirs")
    for modality in CAMERAS:
        name = (
            f"{'' if place else 'sysu'}train_{modality}_resized_img.npy"  # without a slash it lands beside the dataset
        )
        save(tmp_path / place / name, images_of(public_order(root, modality)))
        save(tmp_path / place / name.replace("img", "label"), np.zeros(3))
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert [note.rpartition(": ")[2] for note in found.notes] == [
        "24 of its images were compared with the files",
        "12 of its images were compared with the files",
    ]
    assert_are(tmp_path / "out", masks)


@pytest.mark.parametrize(
    "other",
    [
        lambda files: sorted(files),  # by camera first
        lambda files: files[1:] + files[:1],
        lambda files: files[:10] + files[12:14] + files[10:12] + files[14:],
        lambda files: [*files[:-1]],
    ],
    ids=["cameras first", "shifted by one", "two people exchanged", "one missing"],
)
def test_arrays_in_another_order_are_refused(root, tmp_path, other):
    public_arrays(root, tmp_path / "theirs")
    save(tmp_path / "theirs/train_rgb_resized_img.npy", images_of(other(public_order(root, "rgb"))))
    with pytest.raises(CsviError, match=r"not hold the images in the order of public code|not of one preprocessing"):
        imported(tmp_path / "theirs", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_hardly_differ_are_told_apart_by_their_neighbours(root, tmp_path):
    """Dark images differ by less than two grey levels, whichever they are."""
    for n, file in enumerate(public_order(root, "ir")):
        dark = np.random.default_rng(n).integers(0, 5, (16, 8)).repeat(4, 0).repeat(4, 1)
        write(Path(file), dark.astype(np.uint8)[..., None].repeat(3, 2))
    masks = public_arrays(root, tmp_path / "theirs")
    files = public_order(root, "ir")
    save(tmp_path / "theirs/train_ir_resized_img.npy", images_of(files))
    imported(tmp_path / "theirs", root, tmp_path / "out")
    assert_are(tmp_path / "out", masks)
    save(tmp_path / "theirs/train_ir_resized_img.npy", images_of(files[1:] + files[:1]))
    with pytest.raises(CsviError, match=r"others, such as .*train_ir_resized_img.npy.0., not cam3/0003/0001.png"):
        imported(tmp_path / "theirs", root, tmp_path / "out")
    for file in files[1:]:  # all the same, and none is in the array
        shutil.copy(files[0], file)
    save(tmp_path / "theirs/train_ir_resized_img.npy", images_of(files) + np.uint8(50))
    with pytest.raises(CsviError, match=r"others, such as .*train_ir_resized_img.npy.0., not cam3/0003/0001.png"):
        imported(tmp_path / "theirs", root, tmp_path / "out")


def test_arrays_of_masks_named_like_those_of_images(root, tmp_path):
    """SGIEL's code writes maps of the body's shape into SHAPE/train_rgb_resized_img.npy."""
    masks = public_arrays(root, tmp_path / "shape", lambda masks: masks[..., None].repeat(3, -1) * np.uint8(255))
    for modality, name in (("rgb", "RGB"), ("ir", "IR")):
        (tmp_path / f"shape/train_{name}_img_mask.npy").rename(tmp_path / f"shape/train_{modality}_resized_img.npy")
        save(root / f"train_{modality}_resized_img.npy", images_of(public_order(root, modality)))
        save(tmp_path / f"shape/train_{modality}_resized_label.npy", np.zeros(3))
    found = imported(tmp_path / "shape", root, tmp_path / "out")
    assert_are(tmp_path / "out", masks)
    assert str(root / "train_rgb_resized_img.npy") in found.notes[0]
    with pytest.raises(CsviError, match="look like photographs"):
        imported(root / "train_rgb_resized_img.npy", root, tmp_path / "other")


def test_regdb_is_in_the_order_of_its_lists(tmp_path, capsys):
    root, rng, masks = tmp_path / "regdb", np.random.default_rng(0), {}
    (root / "idx").mkdir(parents=True)
    for name, folder in (("visible", "Visible"), ("thermal", "Thermal")):
        for split, people in (("train", (9, 2)), ("test", (4, 5))):
            files = [f"{folder}/{i}/{n}.png" for i in people for n in (2, 1)]
            lines = [f"{file} {1 - n // 2}" for n, file in enumerate(files)]
            (root / f"idx/{split}_{name}_3.txt").write_text("\n".join(lines))
            for file in files:
                write(root / file, rng.integers(0, 256, (64, 32, 3)).astype(np.uint8))
            if split == "train":
                own = {file.removesuffix(".png"): person(len(masks) + n) for n, file in enumerate(files)}
                save(tmp_path / f"theirs/{name}_masks.npy", np.array(list(own.values())))
                masks |= own
    words = ["masks", "import", str(tmp_path / "theirs"), "--data.root", str(root), "--out", str(tmp_path / "out")]
    assert main([*words, "--data.fold", "3"]) == 0
    assert f"csvi train --data.layout regdb --data.fold 3 --data.root {root}" in capsys.readouterr().out
    assert_are(tmp_path / "out", masks)


def test_an_array_of_a_layout_of_no_public_order_is_refused(root, tmp_path):
    mine = tmp_path / "mine"
    for camera, folder in ((1, "visible"), (3, "infrared")):
        shutil.copytree(root / f"cam{camera}", mine / folder)
    with pytest.raises(CsviError, match=r"no public code says their order .* write each mask to a file"):
        imported(save(tmp_path / "rgb_mask.npy", np.zeros((8, 64, 32), np.uint8)), mine, tmp_path / "out")


def test_what_is_no_array_of_images_is_one_sentence_and_never_unpickled(trap, tmp_path):
    file = tmp_path / "rgb_mask.npy"
    objects = np.empty(3, object)
    objects[:] = trap
    np.save(file, objects, allow_pickle=True)
    with pytest.raises(CsviError, match=r"cannot read the array .*without objects"):
        Stack(file)
    save(file, np.zeros((4, 8, 8), np.uint8))
    whole = file.read_bytes()
    for content in (b"", b"text", whole[:20], whole[:-9], whole.replace(b"4, 8, 8", b"9, 9, 9")):
        file.write_bytes(content)
        with pytest.raises(CsviError, match="cannot read the array"):
            Stack(file)
    for array in (np.zeros((4, 8)), np.zeros((4, 3, 8, 8)), np.zeros((0, 8, 8)), np.zeros((4, 8, 8), complex)):
        with pytest.raises(CsviError, match="array"):
            Stack(save(file, array))
    with file.open("wb") as opened:
        np.savez(opened, a=np.zeros((4, 8, 8)))
    with pytest.raises(CsviError, match="no array of numbers"):
        Stack(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CsviError, match="pipe"):
        Stack(file)


def test_values_that_are_no_grey_leave_single_masks_out(root, tmp_path):
    def with_faults(masks):
        masks = masks.astype(np.float32)
        masks[1, 3, 3], masks[2, 3, 3] = np.nan, -0.5
        return masks

    public_arrays(root, tmp_path / "theirs", with_faults)
    found = imported(tmp_path / "theirs", root, tmp_path / "out")
    assert len(found.unreadable) == 4
    assert "train_RGB_img_mask.npy[1]: it has values that are neither" in found.unreadable[0]
    assert len(found.converted) == 32


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["faces.npy"], "does not say whether rgb or ir"),
        (["rgb_mask.npy", "visible_mask.npy"], "may both be the visible masks"),
    ],
)
def test_arrays_whose_names_do_not_say_what_they_are(root, tmp_path, names, sentence):
    files = [save(tmp_path / "theirs" / name, np.zeros((24, 64, 32), np.uint8)) for name in names]
    with pytest.raises(CsviError, match=sentence):
        imported(files[0] if len(files) == 1 else tmp_path / "theirs", root, tmp_path / "out")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_what_comes_next(root, tmp_path, capsys):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    masks_like(root, theirs, "{}_mask.png", of=lambda mask: mask.astype(np.uint8))
    (theirs / "cam1/0003/0001_mask.png").rename(theirs / "cam1/0003/0007_mask.png")
    words = ["masks", "import", str(theirs), "--data.root", str(root), "--out", str(out)]
    assert main(words) == 1
    assert "--data.mask_values nonzero" in capsys.readouterr().err
    assert main([*words, "--data.mask_values", "nonzero"]) == 0
    printed = capsys.readouterr().out
    assert "47 masks, 47 of them new" in printed
    assert "1 images without a mask, such as cam1/0003/0001.png" in printed
    assert f"1 masks without an image, such as {theirs}/cam1/0003/0007_mask.png" in printed
    assert f"next: csvi train --data.root {root} --data.masks {out}" in printed
    assert json.loads((out / "masks.json").read_text())["segmenter"].endswith("theirs, read as nonzero")


def test_a_mask_is_written_under_another_name_first(tmp_path, monkeypatch):
    file = tmp_path / "a/0001.png"
    write_mask(np.zeros((8, 8), np.uint8), file)

    def half(self, partial, kind):
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    def killed(self, file):
        raise KeyboardInterrupt

    for owner, name, fault in ((Path, "replace", killed), (Image.Image, "save", half)):
        monkeypatch.setattr(owner, name, fault)
        with pytest.raises((OSError, KeyboardInterrupt)):
            write_mask(np.ones((8, 8), np.uint8), file)
        assert np.asarray(Image.open(file)).max() == 0
