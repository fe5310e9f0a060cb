"""Layouts by name: those of the package, and one of somebody else."""

import importlib
import sys
from dataclasses import replace

import pytest
from PIL import Image

from csvi.config import DataConfig
from csvi.data import LAYOUTS, Layout, find_layout, protocols_of, read_benchmark, recognise
from csvi.data.check import check_dataset
from csvi.data.crops import read_crops
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.evaluate import Rules
from csvi.synth import SynthConfig, write_benchmark

THEIRS = '''
"""Images by day and by night: ROOT/day/PERSON-CAMERA.png and ROOT/night/PERSON-CAMERA.png; fold 2 turns 1 round."""

from csvi.data import Benchmark, Counts, ImageRecord, Layout, Modality
from csvi.evaluate import Rules


class TheirLayout(Layout):
    title = "Day and Night"
    folds = 2
    counts = {"train": Counts(2, 2, 2), "val": Counts(0, 0, 0), "test": Counts(2, 2, 2)}
    rules = Rules(unique_identities=True)

    def recognise(self, root):
        return (root / "night").is_dir()

    def read(self, root, masks=None, fold=1):
        halves = [], []
        for modality, folder in zip(Modality, ("day", "night")):
            for file in sorted((root / folder).iterdir()):
                person, camera = map(int, file.stem.split("-"))
                halves[person > 2].append(ImageRecord(f"{folder}/{file.name}", person, camera, modality))
        train, test = halves[:: 1 if fold == 1 else -1]
        return Benchmark(self.title, root, train, [], test)
'''


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "their_module:TheirLayout"
    sys.modules.pop("their_module", None)


@pytest.fixture
def root(tmp_path):
    for n, folder in enumerate(("day", "night")):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for person in (1, 2, 3, 4):
            Image.new("RGB", (8, 16), (50 * person, 100 * n, 0)).save(
                tmp_path / "images" / folder / f"{person}-{n + 1}.png"
            )
    return tmp_path / "images"


def test_a_layout_of_somebody_else_is_read(theirs, root):
    assert find_layout(theirs).title == "Day and Night"
    benchmark = read_benchmark(DataConfig(root=str(root), layout=theirs))
    assert (benchmark.name, benchmark.layout, benchmark.fold) == ("Day and Night", theirs, 1)
    assert {r.identity for r in benchmark.train} == {1, 2}
    other = read_benchmark(DataConfig(root=str(root), layout=theirs, fold=2))
    assert (other.fold, other.train, other.test) == (2, benchmark.test, benchmark.train)
    with pytest.raises(CsviError, match=r"^Day and Night has the folds 1 to 2: there is no --data.fold 3$"):
        read_benchmark(DataConfig(root=str(root), layout=theirs, fold=3))


def test_a_layout_of_somebody_else_is_checked(theirs, root):
    check = check_dataset(DataConfig(str(root)), theirs, decode=True)
    assert [split.fold for split in check.splits] == [1, 1, 1, 2, 2, 2]
    assert (check.layout, check.title, check.images, check.problems) == (theirs, "Day and Night", 8, [])
    assert {split.fold for split in check.splits} == {1, 2}
    (root / "night" / "4-2.png").unlink()
    paths = [finding.path for finding in check_dataset(DataConfig(str(root)), theirs).problems]
    assert paths == ["test of fold 1", "train of fold 2"]


def test_a_layout_of_somebody_else_has_its_protocols(theirs, root):
    benchmark = read_benchmark(DataConfig(root=str(root), layout=theirs))
    to_visible, to_infrared = protocols_of(benchmark)
    assert (to_visible.name, to_infrared.name) == ("infrared to visible", "visible to infrared")
    assert to_visible.rules == to_infrared.rules == Rules(unique_identities=True)
    (trial,) = to_visible.trials
    assert {benchmark.test[i].modality for i in trial.query} == {Modality.INFRARED}
    assert {benchmark.test[i].modality for i in trial.gallery} == {Modality.VISIBLE}
    with pytest.raises(CsviError, match="are all, not seeded"):
        protocols_of(benchmark, gallery="seeded")


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("4-b.png", "", r"\(ValueError: invalid literal for int\(\) with base 10: 'b', their_module\.py:21\)"),
        ("4.png", "", r"\(ValueError: not enough values to unpack \(expected 2, got 1\), their_module\.py:21\)"),
        ("4-2.png", "return None", r"\(TypeError: read must return a Benchmark, and not None\)"),
    ],
)
def test_what_a_layout_of_somebody_else_does_not_expect_is_one_sentence(theirs, root, tmp_path, file, code, said):
    (root / "night" / "4-2.png").rename(root / "night" / file)
    if code:
        (tmp_path / "their_module.py").write_text(
            THEIRS.replace("return Benchmark", f"{code}\n        return Benchmark")
        )
    data = DataConfig(root=str(root), layout=theirs)
    for read in (lambda: read_benchmark(data), lambda: check_dataset(data, theirs), lambda: read_crops(data, theirs)):
        with pytest.raises(CsviError, match=rf"^{theirs} cannot read {root} {said}$"):
            read()


def test_a_layout_without_writer_is_refused(theirs, tmp_path):
    with pytest.raises(CsviError, match=rf"^the layout {theirs} \(Day and Night\) has no writer of synthetic images"):
        write_benchmark(tmp_path / "out", replace(SynthConfig(preset="tiny"), layout=theirs))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["market", "no_such_module:Theirs", "csvi.data.records:Benchmark"])
def test_what_is_no_layout_is_refused(name, root):
    with pytest.raises(CsviError, match=f"layout {name!r}|layout {name}|{name} is no layout"):
        find_layout(name)
    with pytest.raises(CsviError, match="layout"):
        read_benchmark(DataConfig(root=str(root), layout=name))


def test_folder_of_another_layout_is_refused(sysu_root):
    assert recognise(sysu_root) == recognise(str(sysu_root)) == "sysu"
    for read in (
        lambda root: read_benchmark(DataConfig(root=root, layout="llcm")),
        lambda root: check_dataset(DataConfig(root), "llcm"),
    ):
        with pytest.raises(CsviError, match=r"is not laid out as LLCM but as SYSU-MM01: set --data.layout sysu$"):
            read(str(sysu_root))
    with pytest.raises(CsviError, match=r"^SYSU-MM01 has one fold: there is no --data.fold 2$"):
        read_benchmark(DataConfig(root=str(sysu_root), fold=2))
    with pytest.raises(CsviError, match="give its folder with"):
        read_benchmark(DataConfig())


def make(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)


SYSU = [*(f"cam{camera}" for camera in range(1, 7)), "exp"]


@pytest.mark.parametrize(
    ("folders", "given", "layout", "advice"),
    [
        (["DATA/" + name for name in SYSU], ".", "sysu", r"a dataset lies one folder deeper, give .*/DATA$"),
        (["a/visible", "a/infrared", "b/visible", "b/infrared"], ".", "sysu", r"give .*/a \(or another of 2\)$"),
        (SYSU, "cam1", "sysu", r"it is a part of a dataset that is laid out as SYSU-MM01, give .*/data$"),
        ([*SYSU, "cam1/0001"], "cam1/0001", "sysu", r"a part of .* SYSU-MM01, give .*/data$"),
        (["visible/anna", "infrared"], "visible", "folder", r"a part of .* a folder of people, give .*/data$"),
        (["Visible", "Infrared"], ".", "folder", r"it holds Visible and Infrared, rename them visible and infrared$"),
        (["RGB", "IR"], ".", "folder", r"it holds RGB and IR, rename them visible and infrared$"),
        (["visible", "thermal"], ".", "folder", r"it holds thermal, rename it infrared$"),
        (["RGB", "nir"], ".", "sysu", r"rename them visible and infrared, for --data.layout folder$"),
        (["Cam1", "CAM2", *SYSU[2:]], ".", "sysu", r"it holds Cam1 and CAM2, rename them cam1 and cam2$"),
        (["IDX", "Test_Vis", "test_nir"], ".", "llcm", r"it holds IDX and Test_Vis, rename them idx and test_vis$"),
    ],
)  # fmt: skip
def test_a_folder_that_is_another_one_is_told_what_it_is(tmp_path, folders, given, layout, advice):
    root = tmp_path / "data"
    make(root, *folders)
    title = find_layout(layout).title
    with pytest.raises(CsviError, match=rf"^{root / given} is not laid out as {title}: .*{advice}"):
        read_benchmark(DataConfig(root=str(root / given), layout=layout))
    with pytest.raises(CsviError, match=rf"^{root / given} is not laid out as {title}: .*{advice}"):
        check_dataset(DataConfig(str(root / given)), layout)
    with pytest.raises(CsviError, match=rf"^{root / given} looks like no dataset that csvi knows: "):
        check_dataset(DataConfig(str(root / given)))


def test_what_a_folder_lacks_of_its_layout_is_said_by_its_reader(tmp_path):
    """And not that it should have another name."""
    make(tmp_path, "Visible", "Thermal", *SYSU[:6])
    with pytest.raises(CsviError, match=r"^no .*idx/test_visible_1.txt: RegDB comes with it"):
        read_benchmark(DataConfig(root=str(tmp_path), layout="regdb"))
    with pytest.raises(CsviError, match=r"^no .*exp/train_id.txt: SYSU-MM01 comes with it"):
        read_benchmark(DataConfig(root=str(tmp_path)))
    with pytest.raises(CsviError, match=r"nowhere is not a folder: give the folder of SYSU-MM01"):
        read_benchmark(DataConfig(root=str(tmp_path / "nowhere")))


def test_a_dataset_that_lacks_the_folder_it_is_known_by_is_told_so(tmp_path):
    make(tmp_path, *SYSU[1:])
    with pytest.raises(CsviError, match=r"csvi knows: it looks like SYSU-MM01 without cam1: copy it there$"):
        check_dataset(DataConfig(str(tmp_path)))


def test_a_folder_of_which_nothing_is_known_is_told_what_it_holds(tmp_path):
    make(tmp_path, "photos", "drawings")
    with pytest.raises(CsviError, match=r"looks like no dataset .*: it holds drawings, photos; name its layout with"):
        check_dataset(DataConfig(str(tmp_path)))


def test_layouts_of_the_package():
    assert [find_layout(name).title for name in LAYOUTS] == ["SYSU-MM01", "RegDB", "LLCM", "a folder of people"]
    assert all(isinstance(find_layout(name), Layout) and find_layout(name).writer for name in LAYOUTS)
