"""`csvi masks`: a tree of masks, what is said of each, and that a job can be killed anywhere."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.crops import NO_CAMERA, Crops, read_crops
from csvi.data.images import TroubleReading
from csvi.data.records import DISTRACTOR, Modality
from csvi.errors import CsviError
from csvi.masks.make import DOUBTFUL, LIST, UNREADABLE, check_names, make_masks, read_list
from csvi.masks.pictures import write_least_sure
from csvi.masks.segmenter import Segmenter
from csvi.masks.tables import print_made


class Middle(Segmenter):
    """Marks the middle of every crop, or its whole where the crop is bright all over."""

    name = "middle"

    def __init__(self):
        self.seen = 0

    def probabilities(self, images):
        self.seen += len(images)
        return [self.of(image) for image in images]

    def of(self, image):
        height, width = image.shape[:2]
        probability = np.full((height, width), 0.02, np.float32)
        probability[height // 10 : -height // 10, width // 4 : -width // 4] = 0.98
        return np.ones_like(probability) if image.min() > 250 else probability


@pytest.fixture
def crops(tmp_path):
    """Six crops that no layout knows: three grey, two coloured, one all white."""
    rng = np.random.default_rng(0)
    for n in range(6):
        pixels = rng.integers(0, 255, (64, 32, 3 if n > 2 else 1)).repeat(1 if n > 2 else 3, 2)
        file = tmp_path / "crops" / f"day{n % 2}" / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 32, 3), 255, np.uint8) if n == 5 else pixels.astype(np.uint8)).save(file)
    return read_crops(DataConfig(root=str(tmp_path / "crops")))


def test_the_masks_are_a_tree_that_training_reads(sysu_root, tmp_path):
    crops = read_crops(DataConfig(root=str(sysu_root)))
    made = make_masks(crops, tmp_path / "masks", Middle())
    assert {line.verdict for line in made.lines} == {"good"}
    assert made.new == len(crops.records) == 240
    benchmark = read_benchmark(DataConfig(root=str(sysu_root), masks=str(tmp_path / "masks")))
    for split in benchmark.splits.values():
        assert all(r.mask == (tmp_path / "masks" / r.path).with_suffix(".png") for r in split)
        assert Image.open(split[0].mask).size == Image.open(benchmark.file(split[0])).size
    assert np.unique(np.asarray(Image.open(benchmark.train[0].mask))).tolist() == [0, 250]


def test_a_folder_of_crops_needs_no_names(crops, tmp_path):
    assert {(r.identity, r.camera) for r in crops.records} == {(DISTRACTOR, NO_CAMERA)}
    modality = {r.path: r.modality for r in crops.records}
    assert modality["day0/0.png"] == Modality.INFRARED
    assert modality["day1/3.png"] == Modality.VISIBLE
    made = make_masks(crops, tmp_path / "masks", Middle())
    assert made.new == 6


def test_doubtful_masks_lie_apart_and_are_listed(crops, tmp_path):
    out = tmp_path / "masks"
    make_masks(crops, out, Middle())
    with (out / LIST).open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows["day1/5.png"]["verdict"] == "large"
    assert rows["day1/5.png"]["area"] == "1.0000"
    assert (out / DOUBTFUL / "day1/5.png").is_file()
    assert not (out / "day1/5.png").exists()
    assert rows["day0/0.png"]["verdict"] == "good"
    assert (out / "day0/0.png").is_file()


def test_what_is_there_is_not_made_again(crops, tmp_path):
    out, segmenter = tmp_path / "masks", Middle()
    first = make_masks(dataclasses.replace(crops, records=crops.records[:4]), out, segmenter)
    assert segmenter.seen == 8  # each with its mirror image
    (out / "day0/0.png").unlink()
    (out / "day0/2.png").write_bytes(b"")  # as a power cut may leave it
    second = make_masks(crops, out, segmenter)
    assert second.new == 4
    assert segmenter.seen == 16
    assert [line for line in second.lines if line.path == "day1/1.png"] == [
        line for line in read_list(out) if line.path == "day1/1.png"
    ]
    assert first.lines[0].path == second.lines[0].path


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_kill_cut_off_is_written_anew(crops, tmp_path, cut):
    out = tmp_path / "masks"
    make_masks(crops, out, Middle())
    whole = (out / LIST).read_text()
    (out / LIST).write_text(whole[:-cut])
    made = make_masks(crops, out, Middle())
    assert (out / LIST).read_text() == whole
    assert made.new == 1


def test_a_job_that_fails_in_the_middle_keeps_what_is_done(crops, tmp_path, monkeypatch):
    out = tmp_path / "masks"
    monkeypatch.setattr("csvi.masks.make.BATCH", 2)

    class Dies(Middle):
        def of(self, image):
            if self.seen > 4:
                raise KeyboardInterrupt
            return super().of(image)

    with pytest.raises(KeyboardInterrupt):
        make_masks(crops, out, Dies())
    assert len(read_list(out)) == 2
    segmenter = Middle()
    assert make_masks(crops, out, segmenter).new == 4
    assert segmenter.seen == 8
    assert not list(out.rglob("*.partial"))


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_made(crops, tmp_path):
    broken = crops.root / "day0/2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    made = make_masks(crops, tmp_path / "masks", Middle())
    assert [line.path for line in made.lines if line.verdict == UNREADABLE] == ["day0/2.png"]
    assert sum(line.verdict == "good" for line in made.lines) == 4


def test_two_segmenters_do_not_share_a_folder(crops, tmp_path):
    out = tmp_path / "masks"
    make_masks(crops, out, Middle())
    other = Middle()
    other.name = "other"
    with pytest.raises(CsviError, match="holds masks by middle, not by other"):
        make_masks(crops, out, other)
    assert json.loads((out / "masks.json").read_text())["segmenter"] == "middle"
    with pytest.raises(CsviError, match="something else"):
        make_masks(crops, crops.root, Middle())


def test_images_that_differ_in_their_suffix_alone_are_refused(crops, tmp_path):
    (crops.root / "day0/0.jpg").write_bytes((crops.root / "day0/0.png").read_bytes())
    again = read_crops(crops.data)
    with pytest.raises(CsviError, match="the same mask"):
        make_masks(again, tmp_path / "masks", Middle())


def test_two_unicode_forms_of_one_name_are_one_name(crops):
    both = [dataclasses.replace(crops.records[0], path=path) for path in ("caf\u00e9.jpg", "cafe\u0301.png")]
    with pytest.raises(CsviError, match="the same mask"):
        check_names(both)


def test_masks_of_images_read_in_another_range_are_refused(crops, tmp_path):
    def read_in(visible, infrared):
        return dataclasses.replace(crops, ranges={"visible_range": visible, "infrared_range": infrared})

    make_masks(read_in("auto", "7500,8400"), tmp_path / "masks", Middle())
    with pytest.raises(CsviError, match="was written with infrared_range 7500,8400, not 0,255: take the same, or name"):
        make_masks(read_in("auto", "0,255"), tmp_path / "masks", Middle())
    make_masks(read_in("0,1023", "auto"), tmp_path / "masks", Middle())  # of other images
    facts = json.loads((tmp_path / "masks/masks.json").read_text())
    assert facts["read"] == {"infrared_range": "7500,8400", "visible_range": "0,1023"}


def test_what_is_known_of_an_image_now_is_listed(crops, tmp_path):
    out = tmp_path / "masks"
    make_masks(crops, out, Middle())
    other = [dataclasses.replace(crops.records[0], modality=Modality.VISIBLE), *crops.records[1:]]
    known = dataclasses.replace(crops, records=other, cameras={NO_CAMERA: "north"})
    assert make_masks(known, out, Middle()).new == 1  # which may be read in another range then
    assert {line.camera for line in read_list(out)} == {"north"}
    assert read_list(out)[0].modality == "visible"


def test_of_an_image_that_was_replaced_no_older_mask_is_left(crops, tmp_path):
    out, image = tmp_path / "masks", crops.root / "day0/0.png"
    make_masks(crops, out, Middle())
    Image.new("RGB", (32, 64), "white").save(image)
    os.utime(image, (time.time() + 5,) * 2)
    make_masks(crops, out, Middle())
    assert (out / DOUBTFUL / "day0/0.png").is_file()
    assert not (out / "day0/0.png").exists()
    image.write_bytes(b"nothing")
    os.utime(image, (time.time() + 10,) * 2)
    make_masks(crops, out, Middle())
    assert not (out / DOUBTFUL / "day0/0.png").exists()


HOLD = """
import sys
from pathlib import Path
from csvi.lock import locked
with locked(Path(sys.argv[1]), "", "", ""):
    print("locked", flush=True)
    input()
"""


def test_a_folder_that_another_process_writes_is_named(crops, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "masks")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CsviError, match=f"masks is being written by process {other.pid} on .*: wait for it"):
            make_masks(crops, tmp_path / "masks", Middle())
        other.communicate("\n")
    assert make_masks(crops, tmp_path / "masks", Middle()).new == 6


def test_the_least_sure_masks_are_shown(crops, tmp_path):
    out = tmp_path / "masks"
    made = make_masks(crops, out, Middle())
    sheet = Image.open(write_least_sure(made.lines, crops, out))
    assert sheet.size[0] > 4 * 192
    assert len(np.unique(np.asarray(sheet))) > 50


def test_images_none_of_which_can_be_read_are_counted(crops, tmp_path, capsys):
    for record in crops.records:
        (crops.root / record.path).write_bytes(b"nothing")
    print_made(make_masks(crops, tmp_path / "masks", Middle()), Middle())
    assert "0 of 6 masks are used; 6 unreadable" in capsys.readouterr().out


def test_masks_of_other_images_are_not_taken_for_those_of_these(crops, tmp_path):
    make_masks(crops, tmp_path / "masks", Middle())
    other = shutil.copytree(crops.root, tmp_path / "other")
    with pytest.raises(CsviError, match=r"holds masks of the images in .*crops, not in .*other: name another folder"):
        make_masks(read_crops(DataConfig(root=str(other))), tmp_path / "masks", Middle())
    moved = json.loads((tmp_path / "masks/masks.json").read_text()) | {"images": str(other)}
    (tmp_path / "masks/masks.json").write_text(json.dumps(moved))
    assert make_masks(read_crops(DataConfig(root=str(other))), tmp_path / "masks", Middle()).new == 0


def test_the_mask_of_an_image_that_was_replaced_is_made_anew(crops, tmp_path):
    make_masks(crops, tmp_path / "masks", Middle())
    image = crops.root / "day0/0.png"
    Image.new("RGB", (20, 40)).save(image)
    after = (tmp_path / "masks/day0/0.png").stat().st_mtime + 1
    os.utime(image, (after, after))
    assert make_masks(crops, tmp_path / "masks", Middle()).new == 1
    assert Image.open(tmp_path / "masks/day0/0.png").size == (20, 40)


def test_parts_of_a_table_fill_one_folder(crops, tmp_path):
    parts = [dataclasses.replace(crops, records=crops.records[part]) for part in (slice(2), slice(2, None))]
    for part in parts:
        made = make_masks(part, tmp_path / "masks", Middle())
        assert [line.path for line in made.lines] == [record.path for record in part.records]
        assert made.new == len(part.records)
    assert {line.path for line in read_list(tmp_path / "masks")} == {record.path for record in crops.records}
    assert make_masks(parts[0], tmp_path / "masks", Middle()).new == 0


def test_names_of_images_need_not_be_utf_8(crops, tmp_path):
    name = os.fsdecode(b"day0/\xff.png")
    shutil.copy(crops.root / "day0/0.png", crops.root / name)
    crops = read_crops(DataConfig(root=str(crops.root)))
    assert name in {line.path for line in make_masks(crops, tmp_path / "masks", Middle()).lines}
    assert make_masks(crops, tmp_path / "masks", Middle()).new == 0


@pytest.mark.parametrize(("old", "new"), [(",", ";"), ("area", "surface"), ("0.9", "much")])
def test_a_list_that_somebody_changed_is_one_sentence(crops, tmp_path, old, new):
    make_masks(crops, tmp_path / "masks", Middle())
    file = tmp_path / "masks" / LIST
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(CsviError, match=r"masks\.csv is not as csvi wrote it: bring that back, or remove it"):
        make_masks(crops, tmp_path / "masks", Middle())


def test_a_fault_of_the_disk_is_no_fault_of_the_image(crops, tmp_path, monkeypatch):
    def load(self, record):
        raise TroubleReading(self.root / record.path, "could not be read this time: Input/output error")

    monkeypatch.setattr(Crops, "load", load)
    with pytest.raises(TroubleReading, match="Input/output error"):
        make_masks(crops, tmp_path / "masks", Middle())
