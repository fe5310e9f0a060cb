"""RegDB's ten folds, from lists of the true length and from broken ones."""

import pytest

from csvi.config import DataConfig
from csvi.data import read_benchmark, recognise
from csvi.data.records import Counts, ImageRecord, Modality
from csvi.data.regdb import RegDB
from csvi.errors import CsviError

read = RegDB().read
NAMES = ("Visible", "Thermal")


def write_lists(root, fold, people):
    """`people` of each split, ten images of each modality; labels begin at 0 in every file."""
    (root / "idx").mkdir(parents=True, exist_ok=True)
    for split, persons in people.items():
        for name in NAMES:
            lines = [f"{name}/{person}/{n}.bmp {label}\n" for label, person in enumerate(persons) for n in range(10)]
            (root / "idx" / f"{split}_{name.lower()}_{fold}.txt").write_text("".join(lines))


@pytest.fixture
def root(tmp_path):
    """Fold 1 of four people: 1 and 2 train, 3 and 4 test."""
    write_lists(tmp_path / "RegDB", 1, {"train": (1, 2), "test": (3, 4)})
    return tmp_path / "RegDB"


def test_reads_both_splits(root):
    benchmark = read(root)
    assert (benchmark.name, benchmark.synthetic) == ("RegDB", False)
    assert (len(benchmark.train), benchmark.val, len(benchmark.test)) == (40, [], 40)
    assert benchmark.test[0] == ImageRecord("Visible/3/0.bmp", 0, 1, Modality.VISIBLE)
    assert benchmark.test[-1] == ImageRecord("Thermal/4/9.bmp", 1, 2, Modality.INFRARED)
    assert [r.path for r in benchmark.train[:20]] == [f"Visible/{p}/{n}.bmp" for p in (1, 2) for n in range(10)]
    assert {r.identity for r in benchmark.test} == {0, 1}
    assert {r.identity for r in benchmark.train} == {2, 3}
    people = {(r.identity, r.path.split("/")[1]) for r in benchmark.train + benchmark.test}
    assert people == {(0, "3"), (1, "4"), (2, "1"), (3, "2")}
    assert recognise(root) == "regdb"


def test_true_size(tmp_path):
    for fold in range(1, 11):
        order = [(37 * person + fold) % 412 for person in range(412)]
        write_lists(tmp_path, fold, {"train": sorted(order[:206]), "test": sorted(order[206:])})
    assert len((tmp_path / "idx" / "train_visible_1.txt").read_text().splitlines()) == 2060
    paths = []
    for fold in range(1, 11):
        benchmark = read(tmp_path, fold=fold)
        counts = {split: Counts.of(records) for split, records in benchmark.splits.items()}
        assert counts == RegDB.counts == {"train": (206, 2060, 2060), "val": (0, 0, 0), "test": (206, 2060, 2060)}
        assert len({r.identity for r in benchmark.train + benchmark.test}) == 412
        paths.append({r.path for r in benchmark.train + benchmark.test})
        assert len(paths[-1]) == 8240
    assert paths == paths[:1] * 10


def test_root_may_be_relative(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    benchmark = read("RegDB/")
    assert (benchmark.root, benchmark.test) == (root, read(root).test)


def test_masks(root):
    (root / "masks" / "Thermal" / "3").mkdir(parents=True)
    (root / "masks" / "Thermal" / "3" / "7.png").touch()
    masks = {r.path: r.mask for r in read(root).test if r.mask}
    assert masks == {"Thermal/3/7.bmp": root / "masks/Thermal/3/7.png"}


@pytest.mark.parametrize("fold", [11, 99])
def test_no_such_fold(root, fold):
    with pytest.raises(CsviError, match=rf"^RegDB has the folds 1 to 10: there is no --data.fold {fold}$"):
        read_benchmark(DataConfig(root=str(root), layout="regdb", fold=fold))


@pytest.mark.parametrize("name", ["train_visible", "train_thermal", "test_visible", "test_thermal"])
def test_missing_list(root, name):
    with pytest.raises(CsviError, match=r"^no .*idx/test_visible_2.txt: RegDB comes with it"):
        read(root, fold=2)
    (root / "idx" / f"{name}_1.txt").unlink()
    with pytest.raises(CsviError, match=rf"^no .*idx/{name}_1.txt: RegDB comes with it, copy it from there$"):
        read(root)


def test_image_in_two_lists(root):
    with (root / "idx" / "train_thermal_1.txt").open("a") as file:
        file.write("Thermal\\3\\7.bmp 0\n")
    with pytest.raises(
        CsviError, match=r"^the image Thermal/3/7.bmp is in .*/test_thermal_1.txt and in .*/train_thermal_1.txt: "
    ):
        read(root)


def test_bad_line(root):
    with (root / "idx" / "test_thermal_1.txt").open("a") as file:
        file.write("Thermal/9/1.bmp nine\n")
    with pytest.raises(CsviError, match=r"^line 21 of .*test_thermal_1.txt has the label 'nine'"):
        read(root)


def test_no_folder(tmp_path):
    with pytest.raises(
        CsviError, match=r"nowhere is not a folder: give the folder of RegDB, .* Visible, Thermal and idx"
    ):
        read(tmp_path / "nowhere")
