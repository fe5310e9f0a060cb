"""The tree on disk: layout, determinism, interruption, bad input."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from csvi.errors import CsviError
from csvi.synth import SynthConfig, benchmark, sysu, write_benchmark, write_sheet

TINY = SynthConfig(preset="tiny", processes=1)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_layout(tiny):
    assert len(list(tiny.glob("cam*/*/*.jpg"))) == len(list(tiny.glob("masks/cam*/*/*.png"))) == 12 * 9
    splits = [(tiny / f"exp/{split}_id.txt").read_text().splitlines() for split in ("train", "val", "test")]
    assert [len(lines) for lines in splits] == [1, 1, 1]
    identities = [[int(number) for number in lines[0].split(",")] for lines in splits]
    assert [len(split) for split in identities] == [6, 2, 4]
    assert sorted(number for split in identities for number in split) == list(range(1, 13))
    assert (tiny / "README").read_text().startswith("SYNTHETIC PEOPLE. This is not SYSU-MM01")


def test_official_permutations_read_as_the_real_file(tiny):
    cameras = loadmat(tiny / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    assert cameras.shape == (6, 1)
    for camera, images in ((1, 2), (2, 1), (6, 2)):
        orders = cameras[camera - 1][0][12 - 1][0]
        assert orders.shape == (10, images)
        assert (np.sort(orders, axis=1) == np.arange(1, images + 1)).all()


def test_paper_preset_has_the_real_structure():
    wanted = sysu.structure("paper")
    assert sum(wanted.images[identity, 3] == 0 for identity in wanted.splits["train"]) == 3
    assert len(sysu.plan("paper", 0).shots) == 44_745


@pytest.mark.slow
def test_number_of_processes_does_not_change_a_byte(tiny, tmp_path):
    write_benchmark(f"{tmp_path}/one", TINY)
    assert contents(tmp_path / "one") == contents(tiny)


def test_progress_is_not_printed(tiny, tmp_path, capsys):
    shutil.copytree(tiny, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "cam1" / "0001")
    write_benchmark(tmp_path / "out", TINY)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_interrupted_run_is_completed_to_the_same_bytes(tiny, tmp_path, monkeypatch):
    written = []
    put = benchmark.put

    def put_until_interrupted(path: Path, content: bytes) -> None:
        if len(written) == 50:
            path.write_bytes(b"")  # as a power cut may leave it
            raise KeyboardInterrupt
        written.append(path)
        put(path, content)

    monkeypatch.setattr(benchmark, "put", put_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(tmp_path / "out", TINY)
    monkeypatch.setattr(benchmark, "put", put)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    assert 0 < len(kept) < 108
    write_benchmark(tmp_path / "out", TINY)
    assert contents(tmp_path / "out") == contents(tiny)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


@pytest.mark.slow
def test_another_seed_gives_other_people(tiny, tmp_path):
    other = tmp_path / "other"
    write_benchmark(other, replace(TINY, seed=1))
    ours, theirs = contents(tiny), contents(other)
    assert ours.keys() == theirs.keys()
    assert all(ours[path] != theirs[path] for path in ours if path.endswith(".jpg"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"height": 20}, "height is 20: it must be from 48 to 1024"),
        ({"width": 5000}, "width is 5000: it must be from 24 to 1024"),
        ({"rho_min": 0.9}, "rho_min is 0.9, and rho_max 0.8"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
        ({"processes": 0}, "processes is 0: it must be at least 1"),
        ({"preset": "huge"}, "preset is 'huge': it must be one of tiny, demo, study, paper"),
    ],
)
def test_impossible_settings(change, sentence):
    with pytest.raises(CsviError, match=sentence):
        replace(TINY, **change)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "README").write_text("my holiday photos")
    before = contents(tmp_path)
    with pytest.raises(CsviError, match="something else"):
        write_benchmark(tmp_path, TINY)
    assert contents(tmp_path) == before


def test_benchmark_of_other_settings_is_left_alone(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    with pytest.raises(CsviError, match="other settings"):
        write_benchmark(tmp_path / "copy", replace(TINY, seed=1))
    assert contents(tmp_path / "copy") == contents(tiny)


def test_benchmark_with_an_older_text_in_its_readme_goes_on(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    text = (tiny / "README").read_text()
    (tmp_path / "copy/README").write_text(text.replace("rendered people", "people"))
    write_benchmark(tmp_path / "copy", TINY)
    assert contents(tmp_path / "copy") == contents(tiny)


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CsviError, match="is a file"):
        write_benchmark(tmp_path / "file", TINY)
    with pytest.raises(CsviError, match="cannot write"):
        write_benchmark(tmp_path / "file" / "below", TINY)


def test_sheet_shows_every_person(tmp_path):
    write_sheet(tmp_path / "sheet.png", TINY, people=3)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 84 + 3 * (48 + 4)
        assert sheet.height > 6 * 96
        colors = np.asarray(sheet.convert("RGB"), dtype=int)
    assert np.ptp(colors, axis=2).max() > 40, "no colour in the visible rows"
    with pytest.raises(CsviError, match="cannot write"):
        write_sheet(tmp_path / "sheet.png" / "below.png", TINY, people=1)


@pytest.mark.parametrize(("layout", "rows"), [("regdb", 4), ("llcm", 6), ("folder", 6)])
def test_sheet_of_every_layout(tmp_path, layout, rows):
    write_sheet(tmp_path / "sheet.png", replace(TINY, layout=layout), people=1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (84 + 48 + 4, 22 + rows * (96 + 4))


def test_importing_is_light():
    heavy = "{'numba', 'PIL', 'scipy', 'torch'}"
    code = f"import sys, csvi.synth; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
