"""Each layout as its reader finds it on disk."""

import csv
import json
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from csvi.config import DataConfig
from csvi.data import LAYOUTS, find_layout, read_benchmark, recognise
from csvi.data.files import is_synthetic
from csvi.data.records import Counts, Modality
from csvi.errors import CsviError
from csvi.synth import SynthConfig, llcm, write_benchmark
from csvi.synth.benchmark import plan_of


def settings(layout: str) -> SynthConfig:
    return SynthConfig(layout=layout, preset="tiny", processes=1)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def rows(file: Path) -> list[tuple[str, int]]:
    return [(path, int(label)) for path, label in (line.split(" ") for line in file.read_text().splitlines())]


def test_every_layout_of_the_readers_is_written():
    for layout in LAYOUTS:
        assert plan_of(layout, "tiny", 0).shots


@pytest.mark.slow
def test_readers_find_what_counts_say(written):
    layout, root = written
    counts = {split: Counts(**count) for split, count in json.loads((root / "counts.json").read_text()).items()}
    for fold in range(1, find_layout(layout).folds + 1):
        benchmark = read_benchmark(DataConfig(root=str(root), layout=layout, fold=fold))
        assert {split: Counts.of(records) for split, records in benchmark.splits.items()} == counts
        assert benchmark.synthetic
        assert (benchmark.layout, benchmark.fold) == (layout, fold)
    assert recognise(root) == layout


def test_images_are_those_of_the_plan_and_each_has_its_mask(written):
    layout, root = written
    shots = {shot.path: shot for shot in plan_of(layout, "tiny", 0).shots}
    benchmark = find_layout(layout).read(root)
    records = [record for split in benchmark.splits.values() for record in split]
    assert sorted(shots) == sorted(record.path for record in records)
    assert {str(path.relative_to(root)) for path in root.rglob("*.jpg")} == shots.keys()
    for record in records:
        assert record.mask == root / shots[record.path].mask
        with Image.open(root / record.path) as image, Image.open(record.mask) as mask:
            assert image.size == mask.size == (48, 96)
            assert (image.mode, mask.mode) == ("RGB", "L")
            channels = image.resize((1, 1)).getpixel((0, 0))
        assert (len(set(channels)) == 1) == (record.modality == Modality.INFRARED)


def test_readers_keep_people_apart(written):
    """An identity of the reader is one person of the renderer, and the other way round."""
    layout, root = written
    person = {shot.path: shot.identity for shot in plan_of(layout, "tiny", 0).shots}
    benchmark = find_layout(layout).read(root)
    pairs = {(record.identity, person[record.path]) for split in benchmark.splits.values() for record in split}
    assert len(pairs) == len({read for read, _ in pairs}) == len({drawn for _, drawn in pairs})


def test_readme_says_what_it_is(written):
    layout, root = written
    readme = (root / "README").read_text()
    assert readme.startswith("SYNTHETIC PEOPLE. This is not ")
    assert is_synthetic(root)
    assert f'"layout": "{layout}"' in readme
    assert "CC0 1.0" in readme
    assert max(map(len, readme.splitlines())) <= 120
    folders = {path.name for path in root.iterdir() if path.is_dir()} - {"masks"}
    assert all(name in readme or name in {f"cam{camera}" for camera in range(2, 6)} for name in folders)


def test_near_infrared_is_not_called_thermal():
    assert "nothing here is thermal" in plan_of("regdb", "tiny", 0).about


def test_deleted_files_are_written_again_to_the_same_bytes(written, tmp_path):
    layout, root = written
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shots = plan_of(layout, "tiny", 0).shots
    for shot in [shot for shot in shots if shot.identity == shots[-1].identity]:  # a person, and an image, and a mask
        (copy / shot.path).unlink()
        (copy / shot.mask).unlink()
    (copy / shots[0].path).unlink()
    (copy / shots[1].mask).unlink()
    for path in [path for path in copy.rglob("*") if path.suffix in {".txt", ".csv", ".json", ".mat"}]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in copy.rglob("*.jpg")}
    del kept[copy / shots[1].path]
    write_benchmark(copy, settings(layout))
    assert contents(copy) == contents(root)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_folder_of_another_layout_is_left_alone(written, tmp_path):
    layout, root = written
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    with pytest.raises(CsviError, match="other settings"):
        write_benchmark(copy, settings("regdb" if layout != "regdb" else "llcm"))
    assert contents(copy) == contents(root)


@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm"])
def test_paper_preset_has_the_counts_of_the_dataset(layout):
    plan = plan_of(layout, "paper", 0)
    assert plan.counts == find_layout(layout).counts
    assert len({shot.path for shot in plan.shots}) == len(plan.shots)
    assert [shot.identity for shot in plan.shots] == sorted(shot.identity for shot in plan.shots)


@pytest.mark.parametrize("preset", ["tiny", "demo"])
def test_small_presets(preset):
    expected = {
        ("sysu", "tiny"): [(6, 30, 24), (2, 10, 8), (4, 20, 16)],
        ("regdb", "tiny"): [(6, 24, 24), (0, 0, 0), (6, 24, 24)],
        ("llcm", "tiny"): [(5, 30, 25), (0, 0, 0), (4, 24, 20)],
        ("folder", "tiny"): [(6, 30, 24), (2, 10, 8), (4, 20, 16)],
        ("sysu", "demo"): [(160, 1600, 1600), (16, 160, 160), (70, 700, 700)],
        ("regdb", "demo"): [(120, 1200, 1200), (0, 0, 0), (120, 1200, 1200)],
        ("llcm", "demo"): [(160, 1600, 1280), (0, 0, 0), (70, 700, 560)],
        ("folder", "demo"): [(160, 1600, 1600), (16, 160, 160), (70, 700, 700)],
    }
    for layout in LAYOUTS:
        assert list(plan_of(layout, preset, 0).counts.values()) == expected[layout, preset]


def test_regdb_folds_are_ten_halves():
    lists = plan_of("regdb", "paper", 0).lists
    assert lists.keys() == {
        f"idx/{split}_{name}_{fold}.txt"
        for split in ("train", "test")
        for name in ("visible", "thermal")
        for fold in range(1, 11)
    }
    halves = set()
    for fold in range(1, 11):
        people = {}
        for split in ("train", "test"):
            for name, folder in (("visible", "Visible"), ("thermal", "Thermal")):
                lines = [line.split(" ") for line in lists[f"idx/{split}_{name}_{fold}.txt"].decode().splitlines()]
                assert len(lines) == 2060
                assert Counter(int(label) for _, label in lines) == dict.fromkeys(range(206), 10)
                label_of = {path.split("/")[1]: label for path, label in lines}
                assert {path.split("/")[0] for path, _ in lines} == {folder}
                assert len(label_of) == 206
                assert people.setdefault(split, label_of) == label_of  # the same labels in both spectra
        assert people["train"].keys() | people["test"].keys() == {str(identity) for identity in range(1, 413)}
        halves.add(frozenset(people["train"]))
    assert len(halves) == 10
    assert plan_of("regdb", "paper", 1).lists != lists


@pytest.mark.parametrize("written", ["llcm"], indirect=True)
def test_llcm_lists_and_names(written):
    _, root = written
    identities = [int(word) for word in (root / "idx/test_id.txt").read_text().split(",")]
    assert identities == [6, 7, 8, 9]
    for name, cameras in (("vis", range(1, 10)), ("nir", (1, 2, 4, 5, 6, 7, 8, 9))):
        assert sorted(path.name for path in (root / f"test_{name}").iterdir()) == [f"cam{camera}" for camera in cameras]
        train, test = rows(root / f"idx/train_{name}.txt"), rows(root / f"idx/test_{name}.txt")
        assert {path for path, _ in train} == {str(p.relative_to(root)) for p in (root / name).glob("*/*.jpg")}
        assert {path for path, _ in test} == {
            str(p.relative_to(root)) for p in (root / f"test_{name}").glob("cam*/*/*.jpg")
        }
        assert {label for _, label in train} == set(range(5))
        assert {(int(path.split("/")[2]), label) for path, label in test} == set(zip(identities, range(4), strict=True))
    for record in find_layout("llcm").read(root).train:
        shot = next(shot for shot in plan_of("llcm", "tiny", 0).shots if shot.path == record.path)
        assert record.camera == shot.camera % 10


@pytest.mark.parametrize("preset", ["tiny", "demo", "paper"])
def test_llcm_identities_are_left_with_a_match_in_another_camera(preset):
    wanted = llcm.structure(preset)
    assert min(wanted.images.values()) >= 1
    for offset in llcm.OFFSETS.values():
        seen = Counter(identity for identity, camera in wanted.images if camera // 10 * 10 == offset)
        assert min(seen[identity] for identities in wanted.splits.values() for identity in identities) >= 2


@pytest.mark.parametrize("written", ["folder"], indirect=True)
def test_folder_table(written, tiny):
    _, root = written
    with (root / "images.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["path", "identity", "camera", "modality", "split", "mask", "time"]
    assert {row["identity"] for row in table} == {f"person-{identity:04d}" for identity in range(1, 13)}
    moments = [datetime.fromisoformat(row["time"]) for row in table]
    assert len(set(moments)) == len(table)
    for row, moment in zip(table, moments, strict=True):
        assert (root / row["mask"]).is_file()
        assert (8 <= moment.hour < 18) == (row["modality"] == "visible")
        camera, index = Path(row["path"]).stem.removeprefix("cam").split("-")
        assert camera == row["camera"]
        twin = f"cam{camera}/{row['identity'].removeprefix('person-')}/{index}.jpg"
        assert (root / row["path"]).read_bytes() == (tiny / twin).read_bytes(), "not the photographs of sysu"
    records = [record for split in find_layout("folder").read(root).splits.values() for record in split]
    assert [record.time for record in records] == [
        row["time"] for row in table
    ]  # the plan has train, val, test in turn
