"""Crops that nobody has named: from a folder, a table or a dataset, with camera, modality, time and track."""

import dataclasses
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from csvi.config import DataConfig
from csvi.data.crops import NO_CAMERA, _camera_of, read_crops
from csvi.data.records import DISTRACTOR, Modality
from csvi.errors import CsviError

VISIBLE, INFRARED = Modality


def write(file, grey=False):
    """A crop in colours, or a grey one."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 16, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels[..., :1].repeat(3, 2) if grey else pixels).astype(np.uint8)).save(file)


def crops_of(source, **how):
    return read_crops(DataConfig(root=str(source)), **how)


def known(crops):
    """Path → camera and modality."""
    return {r.path: (crops.name_of_camera(r.camera), r.modality) for r in crops.records}


@pytest.fixture
def folder(tmp_path):
    for path, grey in {"cam3/a.png": True, "camera_0/b.png": False, "c.png": False, "night/d.png": False}.items():
        write(tmp_path / "crops" / path, grey)
    return tmp_path / "crops"


def test_a_folder_says_camera_and_modality_by_its_names_and_the_colours_of_its_images(folder):
    crops = crops_of(folder)
    assert known(crops) == {
        "c.png": ("", VISIBLE), "cam3/a.png": ("3", INFRARED), "camera_0/b.png": ("0", VISIBLE),
        "night/d.png": ("", INFRARED),
    }  # fmt: skip
    assert {(r.identity, r.time, r.track) for r in crops.records} == {(DISTRACTOR, None, None)}
    assert {r.path for r in crops.records if r.camera == NO_CAMERA} == {"c.png", "night/d.png"}
    assert [_camera_of(PurePosixPath(f"{name}/a.png")) for name in ("Cam 7b", "camera-north", "campus", "cameras")] == [
        "7b", "north", None, None,
    ]  # fmt: skip
    assert crops.told == {"by its colours": 3, "by its folder": 1}
    assert crops.source_of_modality == "by its colours (3), by its folder (1)"


def test_folders_above_tell_camera_and_modality_too(folder, tmp_path):
    write(folder / "night" / "cam9" / "e.png")
    assert known(crops_of(folder / "night" / "cam9")) == {"e.png": ("", VISIBLE)}
    assert known(crops_of(folder / "night" / "cam9", top=tmp_path)) == {"e.png": ("9", INFRARED)}
    (folder / "cam3" / "list.csv").write_text("path\na.png\n")
    assert known(crops_of(folder / "cam3" / ".." / "cam3" / "list.csv", top=folder)) == {"a.png": ("3", INFRARED)}
    assert known(crops_of(folder, top=tmp_path / "elsewhere")) == known(crops_of(folder))


def test_what_nobody_said_is_a_guess(folder):
    assert crops_of(folder).guessed["night/d.png"] == ["camera", "modality"]
    assert crops_of(folder, modality=INFRARED).guessed["cam3/a.png"] == ["camera"]
    (folder / "list.csv").write_text(
        "path,camera,modality\ncam3/a.png,,visible\nc.png,gate,\nnight/d.png,gate,visible\n"
    )
    assert crops_of(folder / "list.csv").guessed == {
        "cam3/a.png": ["camera"], "c.png": ["modality"], "night/d.png": [],
    }  # fmt: skip


def test_what_is_given_goes_before_what_an_image_looks_like(folder):
    assert {r.modality for r in crops_of(folder, modality=INFRARED).records} == {INFRARED}
    of_camera = crops_of(folder, infrared_cameras=["0"])
    assert known(of_camera)["cam3/a.png"] == ("3", VISIBLE)
    assert known(of_camera)["camera_0/b.png"] == ("0", INFRARED)
    with pytest.raises(CsviError, match=r"no image is of the camera '7': the cameras of .*crops are 0, 3$"):
        crops_of(folder, infrared_cameras=["3", "7"])


def test_folders_of_masks_are_no_crops(folder, caplog):
    write(folder / "out" / "c.png")
    assert len(crops_of(folder).records) == 5
    assert len(crops_of(folder, without=[folder / "out", folder]).records) == 4
    write(folder / "site" / "cam1" / "x.jpg")
    write(folder / "site" / "masks" / "cam1" / "x.png")
    write(folder / "masks" / "someone.png")
    with caplog.at_level("INFO", "csvi"):
        paths = {r.path for r in crops_of(folder).records}
    assert len(paths) == 7
    assert {"site/cam1/x.jpg", "masks/someone.png"} < paths  # the latter is no image's mask
    assert caplog.messages == [f"{folder / 'site/masks'}: left out, as person masks of the images beside it: 1"]


@pytest.mark.parametrize("missing", ["exp", "cam1"])
def test_a_dataset_that_lacks_a_folder_is_not_taken_for_a_heap_of_crops(missing, tmp_path):
    for name in {"exp", *(f"cam{camera}" for camera in range(1, 7))} - {missing}:
        write(tmp_path / name / "0001" / "0001.png")
    with pytest.raises(CsviError, match=rf"looks like SYSU-MM01 without {missing}: copy it there; or, if"):
        crops_of(tmp_path)
    assert len(crops_of(tmp_path, infrared_cameras=["3"]).records) == 6
    write(tmp_path / "cam7" / "x.png")  # which SYSU-MM01 has not
    assert len(crops_of(tmp_path).records) == 7


def test_a_table_says_what_it_likes(folder):
    table = folder / "list.csv"
    table.write_text(
        "Path;Camera;time;modality;score;track\n"
        "cam3/a.png;;2024-05-01T12:00:00+02:00;visible;.9;3-17\n\n"
        "camera_0/b.png;gate;;;.8;\n"
        "c.png;;;;;\n"
    )
    crops = crops_of(table)
    assert crops.root == folder
    assert crops.layout is None
    assert known(crops) == {"cam3/a.png": ("3", VISIBLE), "camera_0/b.png": ("gate", VISIBLE), "c.png": ("", VISIBLE)}
    assert [r.time for r in crops.records] == ["2024-05-01T12:00:00+02:00", None, None]
    assert [r.track for r in crops.records] == ["3-17", None, None]
    assert crops.told == {"by the table": 1, "by its colours": 2}
    assert crops.load(crops.records[0]).size == (16, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,camera\na.png,1\n", "has no column path"),
        ("path,modality\nc.png,thermal\n", "line 2 of .* has the modality 'thermal': choose one of visible, infrared"),
        ("path,time\nc.png,yesterday\n", "line 2 of .* has the time 'yesterday': write it as"),
        ("path\n../c.png\n", "paths must be relative"),
        ("path\nc.png\nc.png\n", r"line 3 of .* names c.png again"),
        ("path,camera\nc.png\n", "has not as many fields as the header, 2"),
        ("path\n", "no images in .*list.csv"),
    ],
)
def test_a_wrong_table_is_refused(text, message, folder):
    (folder / "list.csv").write_text(text)
    with pytest.raises(CsviError, match=message):
        crops_of(folder / "list.csv")


def test_columns_that_are_not_read_are_named(folder, caplog):
    (folder / "list.csv").write_text("path,camrea\nc.png,3\n")
    with caplog.at_level("INFO", "csvi"):
        crops_of(folder / "list.csv")
    assert caplog.messages == [f"{folder / 'list.csv'}: not read: camrea"]


def test_a_dataset_says_itself_what_its_images_are(sysu_root):
    crops = crops_of(sysu_root)
    assert (crops.layout, len(crops.records)) == ("sysu", 240)
    assert crops.told == {"by the dataset": 240}
    assert {(crops.name_of_camera(r.camera), r.modality) for r in crops.records if r.camera > 4} == {
        ("5", VISIBLE), ("6", INFRARED),
    }  # fmt: skip
    with pytest.raises(CsviError, match="is laid out as SYSU-MM01, which says which images are infrared"):
        crops_of(sysu_root, modality=VISIBLE)


def test_images_of_a_table_of_people_keep_their_tracks(folder):
    (folder / "images.csv").write_text("path,identity,modality,camera,track\nc.png,anna,visible,gate,t1\n")
    (record,) = crops_of(folder).records
    assert (record.track, record.identity) == ("t1", 0)
    assert crops_of(folder).name_of_camera(record.camera) == "gate"


def test_what_is_no_source_is_one_sentence(folder):
    for source in (folder / "missing", folder / "c.png"):
        with pytest.raises(CsviError, match=r"is no folder and no table \(.csv\)"):
            crops_of(source)
    empty = folder / "nothing"
    empty.mkdir()
    with pytest.raises(CsviError, match="no images in"):
        crops_of(empty)


def test_broken_images_are_left_to_those_who_read_them(folder):
    (folder / "c.png").write_bytes(b"nothing")
    crops = crops_of(folder)
    assert dataclasses.asdict(crops.records[0])["modality"] == INFRARED


def test_options_that_say_nothing_or_two_things_are_one_sentence(folder):
    with pytest.raises(CsviError, match="--modality is that of all images, and --infrared_cameras of some"):
        crops_of(folder, modality=VISIBLE, infrared_cameras=["3"])
    (folder / "table.csv").write_text("path\nc.png\n")
    with pytest.raises(
        CsviError, match=r"table.csv is a table of crops, which has no layout: leave --data.layout sysu"
    ):
        crops_of(folder / "table.csv", layout="sysu")
