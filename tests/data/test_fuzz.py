"""List files, tables and settings of strangers, damaged at random: they are read, or refused with one sentence."""

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csvi.cli import main
from csvi.config import Config, flatten
from csvi.data import find_layout
from csvi.data.records import ImageRecord
from csvi.data.sysu import MODALITIES, PERMUTATIONS
from csvi.errors import CsviError
from csvi.evaluate import evaluate_protocols
from csvi.methods.coseg import CoSeg
from csvi.runs.evaluation import Evaluation
from csvi.runs.settings import load_config, save_config, with_settings

SPICE = [b"", b"\0", b"\n", b"\r\n", b",", b" ", b'"', b"\\", b"../", b"/", b"-1", b"1e9", b"99999999999999999999",
         b"\xff", b"\xef\xbb\xbf", "é".encode(), "٣".encode(), b"nan", b"&a [*a]", b"!!python/object:os.system x",
         b": ", b"{", b"[", b"'", b"#"]  # fmt: skip
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(SPICE) | st.binary(max_size=8))
EDITS = st.lists(EDIT, min_size=1, max_size=4)
CONFIG = Config(CoSeg.Settings())
FEW, MANY = 150, 2_500
"""Cases of each kind of file: always, and in the slow test, more than 10,000 in all."""

LISTS = {
    "sysu": {f"exp/{split}_id.txt": ids for split, ids in (("train", "1,2"), ("val", "3"), ("test", "4,5"))},
    "regdb": {
        f"idx/{split}_{name}_1.txt": f"{folder}/{n}/a b.bmp 0\n{folder}/{n + 1}/b.bmp 1\n"
        for n, split in ((1, "train"), (3, "test"))
        for name, folder in (("visible", "Visible"), ("thermal", "Thermal"))
    },
    "llcm": {
        "idx/train_vis.txt": "vis/0001/0001_c01_s1_f1_vis.jpg 0\n",
        "idx/train_nir.txt": "nir/0001/0001_c02_s1_f1_nir.jpg 0\n",
        "idx/test_id.txt": "6,7\n",
    },
    "folder": {
        "images.csv": "path,identity,camera,modality,split,mask,time\n"
        "a/1.jpg,anna,1,visible,train,a/1.png,2024-05-01T12:00:00\n"
        "a/2.jpg,anna,4,infrared,train,,\n"
        'b/1.jpg,"ben, jr",1,visible,test,,\n'
    },
}
IMAGES = {
    "sysu": [f"cam{camera}/{identity:04d}/0001.jpg" for camera in range(1, 7) for identity in range(1, 6)],
    "regdb": [],
    "llcm": [f"test_{kind}/cam{camera}/{i:04d}/1.jpg" for kind in ("vis", "nir") for camera in (1, 2) for i in (6, 7)],
    "folder": [],
}
FILES = [(layout, name) for layout, lists in LISTS.items() for name in lists]


def damaged(content, edits):
    """Some bytes taken out at some places, and others put there."""
    for place, length, spice in edits:
        at = round(place * len(content))
        content = content[:at] + spice + content[at + length :]
    return content


def accepts_or_says_why(read):
    refusal = "read"
    try:
        read()
    except CsviError as error:
        refusal = str(error)
    assert refusal
    assert "\n" not in refusal
    assert len(refusal) < 1000


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    roots = {}
    for layout, lists in LISTS.items():
        root = roots[layout] = tmp_path_factory.mktemp(layout)
        for name in IMAGES[layout]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        for name, text in lists.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode())
        assert find_layout(layout).read(root).test
    return roots


def fuzz(examples):
    """Derandomised: a red test stays red."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None,
                    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip


def fuzz_lists(layout, name, root, examples):
    content = LISTS[layout][name].encode()

    @fuzz(examples)
    @given(EDITS)
    def check(edits):
        (root / name).write_bytes(damaged(content, edits))
        accepts_or_says_why(lambda: find_layout(layout).read(root))

    try:
        check()
    finally:
        (root / name).write_bytes(content)


@pytest.mark.parametrize(("layout", "name"), FILES)
def test_a_damaged_list_is_read_or_refused(layout, name, roots):
    fuzz_lists(layout, name, roots[layout], FEW)


@pytest.mark.long
@pytest.mark.parametrize(("layout", "name"), FILES)
def test_many_damaged_lists(layout, name, roots):
    fuzz_lists(layout, name, roots[layout], MANY)


@pytest.mark.parametrize(("layout", "name"), FILES)
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lists_with_other_line_ends(layout, name, end, roots):
    file, text = roots[layout] / name, LISTS[layout][name]
    expected = find_layout(layout).read(roots[layout])
    file.write_bytes(text.replace("\n", end).encode())
    try:
        assert find_layout(layout).read(roots[layout]) == expected
    finally:
        file.write_bytes(text.encode())


def fuzz_settings(tmp_path, examples, read=load_config):
    file = tmp_path / "config.yaml"
    save_config(CONFIG, file)
    content = file.read_bytes()

    @fuzz(examples)
    @given(EDITS)
    def check(edits):
        file.write_bytes(damaged(content, edits))
        accepts_or_says_why(lambda: read(file))

    check()


@pytest.mark.slow
def test_damaged_settings_are_read_or_refused(tmp_path):
    fuzz_settings(tmp_path, FEW)


@pytest.mark.slow
def test_damaged_settings_on_the_command_line(tmp_path, capsys, monkeypatch):
    def run(file):
        try:
            status = main(["train", "--config", str(file)])
        except SystemExit as exit:
            status = exit.code
        if status:
            raise CsviError(capsys.readouterr().err.removesuffix("\n"))

    monkeypatch.setattr("csvi.train.loop.train", lambda *_: None)
    fuzz_settings(tmp_path, FEW // 3, run)


@pytest.mark.long
def test_many_damaged_settings(tmp_path):
    fuzz_settings(tmp_path, MANY)


@pytest.mark.slow
@fuzz(FEW)
@given(st.sampled_from(sorted(flatten(CONFIG))), st.text(max_size=20) | st.floats().map(str) | st.integers().map(str))
def test_any_value_of_any_setting_is_taken_or_refused(name, value):
    accepts_or_says_why(lambda: with_settings(CONFIG, {name: value}))


def test_damaged_permutations_are_refused(roots, tmp_path):
    layout = find_layout("sysu")
    benchmark = layout.read(roots["sysu"])
    cameras = np.empty((6, 1), object)
    for camera in range(6):
        cameras[camera, 0] = np.empty((5, 1), object)
        for identity in range(5):
            cameras[camera, 0][identity, 0] = np.ones((10, 1), np.uint8)
    file = tmp_path / PERMUTATIONS
    file.parent.mkdir()
    scipy.io.savemat(file, {"rand_perm_cam": cameras})
    content = file.read_bytes()

    def protocols():
        return layout.protocols(benchmark.test, "official", tmp_path)

    assert protocols()

    @fuzz(FEW)
    @given(EDITS)
    def check(edits):
        file.write_bytes(damaged(content, edits))
        accepts_or_says_why(protocols)

    check()


def test_damaged_evaluations_are_refused(tmp_path):
    file = tmp_path / "evaluation.json"
    records = [
        ImageRecord(f"cam{camera}/{identity:04d}/1.jpg", identity, camera, modality)
        for camera, modality in MODALITIES.items()
        for identity in range(1, 4)
    ]
    protocols = find_layout("sysu").protocols(records, "seeded", tmp_path, trials=1)
    results = evaluate_protocols(protocols, torch.eye(len(records)), records)
    Evaluation("x", "sysu", 1, "", "", False, "", "", results[:1], [], {}, {}).save(file)
    content = file.read_bytes()
    assert Evaluation.load(str(file)).protocols[0].by_identity.identity == [1, 2, 3]

    @fuzz(FEW)
    @given(EDITS)
    def check(edits):
        file.write_bytes(damaged(content, edits))
        accepts_or_says_why(lambda: Evaluation.load(file))

    check()
