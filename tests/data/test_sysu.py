"""The reader on small trees in SYSU-MM01's layout, whole and broken."""

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csvi.data.files import read_ids
from csvi.data.records import Counts, ImageRecord, Modality
from csvi.data.sysu import MODALITIES, Sysu, images_per_camera
from csvi.errors import CsviError

read = Sysu().read
IDS = {"train": "1,2,5", "val": "3", "test": "4"}


@pytest.fixture
def root(tmp_path):
    """Five identities with two images a camera, but 5 was never in camera 3 and has an empty folder in camera 2."""
    root = tmp_path / "SYSU-MM01"
    (root / "exp").mkdir(parents=True)
    for split, ids in IDS.items():
        (root / "exp" / f"{split}_id.txt").write_text(ids)
    for camera in range(1, 7):
        for identity in range(1, 6):
            if (camera, identity) != (3, 5):
                add(
                    root,
                    f"cam{camera}/{identity:04d}",
                    *(() if (camera, identity) == (2, 5) else ("0002.jpg", "0001.jpg")),
                )
    return root


def add(root, folder, *names):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).touch()


def test_what_sysu_mm01_itself_holds():
    """Facts of the dataset that what reads it must cope with."""
    cameras = {m: [f"cam{camera}" for camera in MODALITIES if MODALITIES[camera] == m] for m in Modality}
    images = {
        split: [
            {m: sum(int(row[camera]) for camera in cameras[m]) for m in Modality}
            for row in images_per_camera()
            if row["split"] == split
        ]
        for split in ("train", "val", "test")
    }
    found = {
        split: Counts(len(people), *(sum(person[m] for person in people) for m in Modality))
        for split, people in images.items()
    }
    assert found == Sysu.counts
    assert found == {"train": (296, 20284, 9929), "val": (99, 1974, 1980), "test": (96, 6775, 3803)}
    assert sum(counted.visible + counted.infrared for counted in found.values()) == 44_745
    assert sum(int(row["cam3"]) == 0 for row in images_per_camera() if row["split"] == "train") == 3
    assert min(person[Modality.VISIBLE] for person in images["train"]) == 10
    assert min(person[Modality.INFRARED] for person in images["train"]) == 20
    people = [int(row["id"]) for row in images_per_camera()]
    assert len(set(people)) == len(people) == 491


def paths(records):
    return [record.path for record in records]


def test_reads_every_split(root):
    benchmark = read(root)
    assert (benchmark.name, benchmark.root) == ("SYSU-MM01", root)
    assert [len(benchmark.train), len(benchmark.val), len(benchmark.test)] == [2 * (3 * 6 - 2), 12, 12]
    assert paths(benchmark.val) == [f"cam{camera}/0003/{n:04d}.jpg" for camera in range(1, 7) for n in (1, 2)]
    assert {r.camera for r in benchmark.train if r.identity == 5} == {1, 4, 5, 6}
    infrared = {r.camera for r in benchmark.train if r.modality == Modality.INFRARED}
    visible = {r.camera for r in benchmark.train if r.modality == Modality.VISIBLE}
    assert (visible, infrared) == ({1, 2, 4, 5}, {3, 6})
    assert all(benchmark.file(record).is_file() for record in benchmark.train)


def test_record_goes_to_other_processes(root):
    record = read(root).test[0]
    assert record == ImageRecord("cam1/0004/0001.jpg", 4, 1, Modality.VISIBLE)
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("written", ["{}/", "{}//", "{}/exp/..", "{}/."])
def test_how_the_root_is_written_does_not_matter(root, written):
    assert paths(read(written.format(root)).train) == paths(read(root).train)


def test_relative_root(root, monkeypatch):
    add(root, "masks/cam1/0004", "0001.png")
    monkeypatch.chdir(root.parent)
    benchmark = read("SYSU-MM01/")
    monkeypatch.chdir("/")
    assert benchmark.file(benchmark.test[0]).is_file()
    assert benchmark.test[0].mask.is_file()


def test_only_images_are_read(root):
    add(
        root,
        "cam1/0004",
        "._0001.jpg",
        "Thumbs.db",
        ".DS_Store",
        "0003.JPG",
        "0004.png",
        "0005.jpeg",
        "0006.bmp",
        "jpg",
    )
    add(root, "cam1/0099", "0001.jpg")  # in no split
    names = [Path(path).name for path in paths(read(root).test) if path.startswith("cam1")]
    assert names == ["0001.jpg", "0002.jpg", "0003.JPG", "0004.png", "0005.jpeg", "0006.bmp"]


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_masks_mirror_the_tree(root, tmp_path, extension):
    add(tmp_path / "other", "cam3/0004", f"0002{extension}")
    masks = {r.path: r.mask for r in read(root, masks=f"{tmp_path}/other/").test if r.mask}
    assert masks == {"cam3/0004/0002.jpg": tmp_path / "other" / "cam3" / "0004" / f"0002{extension}"}


def test_masks_beside_the_images_are_found(root, tmp_path):
    assert not any(r.mask for r in read(root).test)
    add(root, "masks/cam1/0004", "0001.png")
    assert read(root).test[0].mask == root / "masks/cam1/0004/0001.png"
    add(tmp_path / "other", "cam1/0003", "0001.png")
    assert read(root, masks=tmp_path / "other").test[0].mask is None


@pytest.mark.parametrize(
    "content",
    [b"1,2,5", b"5, 2 ,1,", b"1,2,5\r\n", b"\xef\xbb\xbf1,2,5\n", b"0001,0002,0005", b"1\n2\n5\n", b"1,1,2,5,5"],
)
def test_id_lists_as_people_have_them(root, content):
    file = root / "exp" / "train_id.txt"
    file.write_bytes(content)
    assert read_ids(file, "SYSU-MM01") == [1, 2, 5]
    assert len(read(root).train) == 32


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=40) | st.text("0123456789,. \r\n-x\u0661", max_size=40).map(str.encode))
def test_any_id_list_is_read_or_named(tmp_path, content):
    file = tmp_path / "train_id.txt"
    file.write_bytes(content)
    try:
        ids = read_ids(file, "SYSU-MM01")
    except CsviError as error:
        assert str(file) in str(error)  # noqa: PT017
    else:
        assert ids == sorted(set(ids))
        assert all(0 <= identity < 10**9 for identity in ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1,two,5", "train_id.txt holds 'two'"),
        (b"1,2.0", "holds '2.0'"),
        (b"1,-2", "holds '-2'"),
        (b"1," + b"9" * 5000, "holds '999"),
        (b"", "train_id.txt is empty"),
        (b" ,\r\n", "train_id.txt is empty"),
        ("1,2".encode("utf-16")[1:], "cannot read .*train_id.txt as text"),
        (b"1,2,4", "identity 4 is in .*train_id.txt and in .*test_id.txt"),
        (b"77", "no image of any identity of .*train_id.txt"),
    ],
)
def test_bad_id_list(root, content, message):
    (root / "exp" / "train_id.txt").write_bytes(content)
    with pytest.raises(CsviError, match=message):
        read(root)


def test_missing_parts(root, tmp_path):
    with pytest.raises(CsviError, match=r"nowhere is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(CsviError, match=r"no cam1…cam6 in .*: is this the folder of SYSU-MM01\?"):
        read(tmp_path)
    (root / "cam3").rename(root / "camera3")
    with pytest.raises(CsviError, match=r"no cam3 in .*SYSU-MM01:"):
        read(root)
    (root / "camera3").rename(root / "cam3")
    (root / "exp" / "val_id.txt").unlink()
    with pytest.raises(CsviError, match=r"no .*exp/val_id.txt: SYSU-MM01 comes with it"):
        read(root)


def test_missing_masks(root, tmp_path):
    with pytest.raises(CsviError, match="nomasks is not a folder"):
        read(root, masks=tmp_path / "nomasks")
    with pytest.raises(CsviError, match=r"no mask of any image in .*exp: it must mirror"):
        read(root, masks=root / "exp")


@pytest.mark.parametrize("name", ["4", "004", "00004"])
def test_a_persons_folder_of_another_name_is_refused(root, name):
    (root / "cam3" / "0004").rename(root / "cam3" / name)
    with pytest.raises(CsviError, match=rf"cam3/{name} should be named 0004: rename it$"):
        read(root)


def test_file_where_a_folder_should_be(root):
    for image in (root / "cam1" / "0004").iterdir():
        image.unlink()
    (root / "cam1" / "0004").rmdir()
    (root / "cam1" / "0004").touch()
    with pytest.raises(CsviError, match=r"cannot list .*cam1/0004"):
        read(root)
