"""LLCM: training from lists, test from folders; at its true size too."""

import pytest

from csvi.data import recognise
from csvi.data.llcm import CAMERAS, LLCM
from csvi.data.records import Counts, ImageRecord, Modality
from csvi.errors import CsviError

read = LLCM().read
NAMES = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}


def add(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.fixture
def root(tmp_path):
    """Two people to train, 6 and 12 to test: one image in every camera, two of 12 in camera 1."""
    root = tmp_path / "LLCM"
    (root / "idx").mkdir(parents=True)
    for modality, name in NAMES.items():
        lines = [
            f"{name}/{label:04d}/{label:04d}_c{c:02d}_s1_f{c}_{name}.jpg {label}" for label in (0, 1) for c in (3, 7)
        ]
        (root / "idx" / f"train_{name}.txt").write_text("\r\n".join(lines))
        add(root, *[f"test_{name}/cam{c}/{i:04d}/b.jpg" for c in CAMERAS[modality] for i in (6, 12)])
        add(root, f"test_{name}/cam1/0012/a.jpg")
    (root / "idx" / "test_id.txt").write_text("12,6\n")
    return root


def test_reads_both_splits(root):
    benchmark = read(root)
    assert (benchmark.name, benchmark.val) == ("LLCM", [])
    assert benchmark.train[1] == ImageRecord("vis/0000/0000_c07_s1_f7_vis.jpg", 13, 7, Modality.VISIBLE)
    assert {r.identity for r in benchmark.train} == {13, 14}
    assert {r.identity for r in benchmark.test} == {6, 12}
    assert Counts.of(benchmark.test) == (2, 19, 17)
    assert [(r.path, r.camera, r.modality) for r in benchmark.test[:4]] == [
        ("test_vis/cam1/0006/b.jpg", 1, Modality.VISIBLE),
        ("test_vis/cam1/0012/a.jpg", 1, Modality.VISIBLE),
        ("test_vis/cam1/0012/b.jpg", 1, Modality.VISIBLE),
        ("test_vis/cam2/0006/b.jpg", 2, Modality.VISIBLE),
    ]
    assert {r.camera for r in benchmark.test if r.modality == Modality.INFRARED} == {1, 2, 4, 5, 6, 7, 8, 9}
    assert recognise(root) == "llcm"


@pytest.mark.slow
def test_true_size(tmp_path):
    (tmp_path / "idx").mkdir()
    for name, images in (("vis", 16946), ("nir", 13975)):
        lines = [
            f"{name}/{n % 713:04d}/{n % 713:04d}_c{1 + n % 9:02d}_s{n}_{name}.jpg {n % 713}" for n in range(images)
        ]
        (tmp_path / "idx" / f"train_{name}.txt").write_text("\n".join(lines))
    tested = [3 * n + 1 for n in range(351)]
    (tmp_path / "idx" / "test_id.txt").write_text(",".join(map(str, tested)))
    for modality, images in ((Modality.VISIBLE, 8680), (Modality.INFRARED, 7166)):
        cameras = CAMERAS[modality]
        folders = [f"test_{NAMES[modality]}/cam{camera}/{identity:04d}" for camera in cameras for identity in tested]
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        for n in range(images):
            (tmp_path / folders[n % len(folders)] / f"{n}.jpg").touch()
    benchmark = read(tmp_path)
    counts = {split: Counts.of(records) for split, records in benchmark.splits.items()}
    assert counts == LLCM.counts == {"train": (713, 16946, 13975), "val": (0, 0, 0), "test": (351, 8680, 7166)}
    assert len({r.identity for r in benchmark.train + benchmark.test}) == 713 + 351


def test_training_image_without_camera_in_its_name(root):
    (root / "idx" / "train_nir.txt").write_text("nir/somebody.jpg 0\nnir/a_c4x.jpg 0")
    assert [r.camera for r in read(root).train if r.modality == Modality.INFRARED] == [2, 2]


def test_root_may_be_relative(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    benchmark = read("LLCM/")
    assert (benchmark.root, benchmark.test) == (root, read(root).test)


def test_masks(root):
    add(root, "masks/test_nir/cam9/0012/b.png", "masks/vis/0001/0001_c03_s1_f3_vis.png")
    benchmark = read(root)
    masks = {r.path: r.mask.relative_to(root / "masks").as_posix() for r in benchmark.train + benchmark.test if r.mask}
    assert masks == {
        "vis/0001/0001_c03_s1_f3_vis.jpg": "vis/0001/0001_c03_s1_f3_vis.png",
        "test_nir/cam9/0012/b.jpg": "test_nir/cam9/0012/b.png",
    }


@pytest.mark.parametrize("name", ["train_vis.txt", "train_nir.txt", "test_id.txt"])
def test_missing_list(root, name):
    (root / "idx" / name).unlink()
    with pytest.raises(CsviError, match=rf"^no .*idx/{name}: LLCM comes with it, copy it from there$"):
        read(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_vis.txt", "", r"train_vis.txt is empty"),
        ("train_nir.txt", "nir/1.jpg", r"^line 1 of .*train_nir.txt is 'nir/1.jpg'"),
        ("train_nir.txt", "vis/0000/0000_c03_s1_f3_vis.jpg 0", r"is in .*/train_vis.txt and in .*/train_nir.txt"),
        ("test_id.txt", "", r"test_id.txt is empty"),
        ("test_id.txt", "6;12", r"test_id.txt holds '6;12'"),
        ("test_id.txt", "99", r"^no image of any identity of .*test_id.txt in .*test_vis: is the copy complete\?"),
    ],
)
def test_bad_list(root, name, content, message):
    (root / "idx" / name).write_text(content)
    with pytest.raises(CsviError, match=message):
        read(root)


def test_no_infrared_test_images(root):
    (root / "test_nir").rename(root / "test_ir")
    with pytest.raises(CsviError, match=r"^no image of any identity of .*test_id.txt in .*test_nir: "):
        read(root)


def test_file_where_a_folder_should_be(root):
    add(root, "test_vis/cam1/0012x")
    (root / "idx" / "test_id.txt").write_text("6,7")
    add(root, "test_vis/cam1/0007")
    with pytest.raises(CsviError, match=r"^cannot list .*test_vis/cam1/0007: Not a directory"):
        read(root)
