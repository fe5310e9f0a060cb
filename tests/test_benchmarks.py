"""The benchmarks run, notice when what they compare is not the same, and measure what they say."""

import importlib.util
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image

from csvi.config import DataConfig
from csvi.data import protocols_of
from csvi.data.batch import Batch
from csvi.data.records import ImageRecord, Modality
from csvi.data.sysu import Sysu
from csvi.errors import CsviError
from csvi.masks.segmenter import Segmenter
from csvi.runs import save_config
from csvi.train.cost import Cost

SMALL = ["--quick", "--trials", "2", "--dimensions", "16"]
FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name, as a module."""
    monkeypatch.syspath_prepend(FOLDER)  # where `common` is, as for a script that is run

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # where loader processes that are spawned look for it
        spec.loader.exec_module(module)
        return module

    return load


def run(module, words):
    """What a script does with these words."""
    return sys.modules["common"].run(module.measure, module.make_parser(), words)


@pytest.fixture
def evaluation(benchmark):
    return benchmark("evaluation")


def test_three_ways_to_evaluate_agree(evaluation, capsys):
    assert run(evaluation, SMALL) == 0
    assert "1 of 2 trials, scaled" in capsys.readouterr().out


def test_a_difference_is_noticed(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "by_query", lambda *inputs, right=evaluation.by_query: [0.5, *right(*inputs)[1:]])
    assert run(evaluation, SMALL) == 1
    assert "differ by more than" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("startup", ["--repeats", "0"]),
        ("export", ["run", "--turns", "0"]),
        ("evaluation", ["--quick", "--dimensions", "0"]),
        ("feedback", ["run", "--judged", "5", "-1"]),
    ],
)
def test_numbers_below_1_are_one_sentence(benchmark, capsys, name, words):
    with pytest.raises(SystemExit) as ended:
        run(benchmark(name), words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"'{words[-1]}' must be a whole number of at least 1\n")


def test_loading_needs_an_epoch_that_is_not_the_first(benchmark, capsys):
    assert run(benchmark("loading"), ["--epochs", "1"]) == 1
    assert "--epochs 1: give at least 2" in capsys.readouterr().out


def test_large(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(
        evaluation, "TARGET_BYTES", float("inf")
    )  # the process that runs the tests has done other things
    assert run(evaluation, ["--large", *SMALL]) == 0
    assert "GB resident" in capsys.readouterr().out


@pytest.mark.long
def test_training(benchmark, capsys):
    training = benchmark("training")
    assert run(training, ["--quick", "--methods", "baseline", "coseg", "--peak", "1"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "× bare", "coseg", "as usual", "SGD fused", *["≥ 2.0"] * (not torch.cuda.is_available())):
        assert row in out
    assert run(training, ["--quick", "--methods", "baseline", "--no-usual", "--profile"]) == 0
    assert "Self CPU" in capsys.readouterr().out


@pytest.mark.long
def test_the_short_form_ends_with_one_table(benchmark, monkeypatch, capsys):
    training = benchmark("training")
    short = benchmark("short")
    quick = {"startup": "--quick", "training": "--quick --methods baseline"}
    assert short.main([], quick) == 0
    rows = capsys.readouterr().out.rpartition(" found ")[2]
    on_cpu = not torch.cuda.is_available()  # elsewhere the usual way has no target
    for row in ("csvi --help", "a step of baseline", *["a step as usual"] * on_cpu):
        assert row in rows
    monkeypatch.setattr(training, "same_baseline", lambda *_: False)
    assert short.main(["--only", "training"], quick) == 1
    assert "losses of the two Baselines differ" in capsys.readouterr().out


def test_training_notices_another_baseline(benchmark, monkeypatch, capsys):
    training = benchmark("training")
    monkeypatch.setattr(
        training, "losses_as_usual", lambda *inputs, right=training.losses_as_usual: 1.01 * right(*inputs)
    )
    assert run(training, ["--quick", "--methods", "baseline"]) == 1
    assert "losses of the two Baselines differ" in capsys.readouterr().out


def test_the_usual_way_needs_parts_of_one_height(benchmark, capsys):
    assert run(benchmark("training"), ["--height", "100"]) == 1
    assert "give a height" in capsys.readouterr().out


@pytest.mark.slow
def test_embedding(benchmark, capsys):
    assert run(benchmark("embedding"), ["--quick"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "cold cache", "warm cache", "≥ 0.95"):
        assert row in out


@pytest.mark.long
def test_export(benchmark, coseg_run, coseg_onnx, monkeypatch, capsys):
    export = benchmark("export")

    def export_file(model, kind, file, weights):
        shutil.copy(coseg_onnx, file)
        return 1e-7

    monkeypatch.setattr(export, "export_file", export_file)
    assert run(export, [str(coseg_run), "--weights", "float32", "--turns", "1"]) == 0
    out = capsys.readouterr().out
    for word in ("PyTorch, 32-true", "ONNX, weights in float32", "1.0e-07", "mAP", "≤ 1e-04 │ met"):
        assert word in out


def test_gallery(benchmark, capsys):
    gallery = benchmark("gallery")
    assert run(gallery, ["--quick", "--only", "FLAT", "FAISS"]) == 0
    out = capsys.readouterr().out
    for row in ("csvi, FLAT", "FAISS, exact, 16 bits", "FAISS, HNSW", "csvi, FLAT, reduced", "≤ 1 s"):
        assert row in out
    assert "csvi, HNSW" not in out


@pytest.mark.slow
def test_growth(benchmark, tmp_path, monkeypatch, capsys):
    growth = benchmark("growth")
    monkeypatch.setattr(
        growth, "training_cost", lambda *_: Cost(1, 1, 0.5, 2 * 10**9, "CPU")
    )  # tests/train/test_cost.py
    assert run(growth, ["--quick", "--out", str(tmp_path / "performance.png")]) == 0
    assert (tmp_path / "performance.png").stat().st_size > 1000
    out = capsys.readouterr().out
    for row in ("training, coseg", "embedding", "evaluation", "64×32", "GB"):
        assert row in out


@pytest.mark.long
def test_loading(benchmark, capsys):
    assert run(benchmark("loading"), ["--quick", "--step-seconds", "0.01", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    for expected in ("decoding every epoch", "csvi, images and masks", "loading, first epoch", "waiting for batches"):
        assert expected in printed


@pytest.mark.long
def test_loading_beside_training(benchmark, capsys, monkeypatch):
    loading = benchmark("loading")
    steps = []
    monkeypatch.setattr(loading, "training_step", lambda *_: steps.append)
    assert run(loading, ["--quick", "--workers", "0"]) == 0
    assert steps[0].mask.shape == (64, 1, 48, 24)
    assert "resnet50 with coseg" in capsys.readouterr().out


def test_a_step_of_training(benchmark, config):
    loading = benchmark("loading")
    batch = Batch(
        image=torch.randint(256, (64, 3, 48, 24), dtype=torch.uint8),
        mask=torch.randint(256, (64, 1, 48, 24), dtype=torch.uint8),
        modality=torch.arange(2).repeat_interleave(32),
        identity=torch.arange(8).repeat_interleave(4).repeat(2),
    )
    loading.training_step(config, 8)(batch)


@pytest.mark.slow
def test_both_loaders_draw_the_same_images(benchmark, tmp_path):
    loading = benchmark("loading")
    records = loading.make_images(tmp_path / "images", loading.some_names(320))
    with Image.open(tmp_path / "images" / records[7].path) as image, Image.open(records[7].mask) as mask:
        assert image.size == mask.size
        assert 100 <= image.width <= 400
        assert 2 * image.width <= image.height <= 3 * image.width
    data = DataConfig(
        height=48, width=24, workers=0, cache=str(tmp_path / "cache"), flip=0, pad=0, erase=0, grayscale=0
    )
    cpu = torch.device("cpu")
    usual, _ = loading.usual_loader(tmp_path / "images", records, data)
    ours, _ = loading.csvi_loader(tmp_path / "images", records, data, masks=False)
    for theirs, mine in zip(usual, ours, strict=True):
        theirs, mine = loading.usual_to_device(theirs, cpu), loading.prepare(mine, cpu)
        assert torch.equal(theirs.identity, mine.identity)
        torch.testing.assert_close(theirs.image, mine.image, rtol=0, atol=0.02)
        assert theirs.image.stride() == mine.image.stride()


def test_waiting_is_told_from_working(benchmark):
    loading = benchmark("loading")

    class Slow:
        epoch = 0

        def start(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            for _ in range(3):
                time.sleep(0.03)
                yield {}

    slow = Slow()
    share, steps, each = loading.waited_share(slow, slow, lambda _: time.sleep(0.01), 0.3)
    assert 0.5 < share < 0.95
    assert 1 <= steps <= 8
    assert each >= 0.01


@pytest.mark.long
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says what is resident in a process"
)
def test_memory(benchmark, capsys):
    loading = benchmark("loading")
    names = loading.sysu_names()
    assert len(names) == len(set(names)) == 34_167
    assert sum(modality == Modality.INFRARED for _, _, modality in names) == 9929 + 1980
    assert run(loading, ["--quick", "--memory", "--workers", "1"]) == 0
    assert "worker 1" in capsys.readouterr().out


def test_rendering(benchmark, capsys):
    assert run(benchmark("rendering"), ["--quick"]) == 0
    assert "images/s of processor time" in capsys.readouterr().out


def test_startup(benchmark, capsys):
    assert run(benchmark("startup"), ["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "csvi --help" in printed
    assert "python -c pass" in printed


@pytest.mark.long
def test_waiting(benchmark, capsys):
    assert run(benchmark("waiting"), ["--quick", "--threads=1"]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "csvi (GOMP_SPINCOUNT=",
        "as usual (the library's default)",
        "alone, s",
        "beside 2 busy processes",
    ):
        assert expected in printed
    assert "a step alone" in printed


def test_a_process_that_fails_is_told_and_busy_ones_are_ended(benchmark, monkeypatch, capsys):
    waiting = benchmark("waiting")
    started = []

    class Started(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(waiting.subprocess, "Popen", Started)
    with waiting.busy(2):
        assert [process.poll() for process in started] == [None, None]
    assert all(process.poll() is not None for process in started)
    monkeypatch.setattr(waiting, "STEPS", "raise SystemExit('no memory')")
    assert run(waiting, ["--quick"]) == 1
    assert "a process of csvi failed: no memory" in capsys.readouterr().out
    assert len(started) == 4
    assert all(process.poll() is not None for process in started)


@pytest.fixture
def mask_quality(benchmark):
    return benchmark("mask_quality")


BLOCK = np.zeros((7, 7), np.uint8)
BLOCK[2:5, 2:5] = 255


def marked(mask):
    """Rows and columns of the pixels that are marked."""
    return {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}


def test_masks_are_made_thinner_and_thicker_by_a_disc(mask_quality):
    assert marked(mask_quality.eroded(BLOCK, 1)) == {(3, 3)}
    cross = {(r, c) for r in range(7) for c in range(7) if abs(r - 3) <= 2 and abs(c - 3) <= 2} - {
        (1, 1), (1, 5), (5, 1), (5, 5),
    }  # fmt: skip
    assert marked(mask_quality.dilated(BLOCK, 1)) == cross
    at_the_edge = np.full((4, 4), 255, np.uint8)
    assert (mask_quality.eroded(at_the_edge, 1) == 255).all()  # a person who is cut off goes on outside


def test_a_mask_is_shifted_and_what_leaves_the_image_is_lost(mask_quality):
    assert marked(mask_quality.shifted(BLOCK, -3, 1)) == {(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5)}
    assert marked(mask_quality.shifted(BLOCK, 0, 7)) == set()


def test_the_box_of_a_mask(mask_quality):
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 1] = mask[2, 3] = 128
    mask[0, 0] = 127  # no person yet
    assert marked(mask_quality.boxed(mask)) == {(r, c) for r in (1, 2) for c in (1, 2, 3)}
    assert not mask_quality.boxed(np.zeros((4, 5), np.uint8)).any()


def test_the_mean_shape_is_what_most_masks_mark(mask_quality):
    masks = np.zeros((3, 1, 4), np.uint8)
    masks[:, 0, 0] = masks[:2, 0, 1] = masks[2, 0, 2] = 255
    assert mask_quality.mean_shape(list(masks)).tolist() == [[255, 255, 0, 0]]


def test_masks_of_others_are_of_another_person_in_the_same_spectrum(mask_quality):
    records = [ImageRecord(f"{i}.jpg", i // 4, 1, Modality(i % 2)) for i in range(12)]
    chosen = mask_quality.of_others(records, np.random.default_rng(0))
    for record, other in zip(records, (records[i] for i in chosen), strict=True):
        assert (other.identity != record.identity, other.modality) == (True, record.modality)
    exact = [np.full((1, 1), i, np.uint8) for i in range(12)]
    assert [int(mask[0, 0]) for mask in mask_quality.degraded("other", exact, records)] == chosen


@pytest.fixture
def quality_of_masks(mask_quality, config, sysu_root, tmp_path, monkeypatch):
    """Call the script on small data, rendered already, with a segmenter that marks the upper half of an image."""

    class UpperHalf(Segmenter):
        def __init__(self):
            self.name, self.facts = "upper half", {"settings": {"seed": 7}}

        def probabilities(self, images):
            halves = [np.zeros(image.shape[:2], np.float32) for image in images]
            for half in halves:
                half[: len(half) // 2] = 1
            return halves

    monkeypatch.setattr(mask_quality, "find_segmenter", lambda name: UpperHalf())
    monkeypatch.setattr(
        mask_quality, "write_benchmark", lambda out, synth: shutil.copytree(sysu_root, out, dirs_exist_ok=True)
    )
    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", partial(protocols_of, trials=2))
    settings = tmp_path / "small.yaml"
    save_config(config, settings)

    def call(*arguments):
        return run(mask_quality, [str(tmp_path / "out"), "--preset", "tiny", "--config", str(settings), *arguments])

    return call


@pytest.mark.long
def test_runs_on_two_kinds_of_masks_are_compared_and_kept(quality_of_masks, mask_quality, tmp_path, monkeypatch):
    asked = "--kinds", "exact", "predicted", "--methods", "decode", "--seeds", "0"
    assert quality_of_masks(*asked) == 0
    out = tmp_path / "out"
    assert (out / "mask-quality.png").stat().st_size > 1000
    exact, predicted = json.loads((out / "mask-quality.json").read_text())["rows"]
    assert exact["iou"] == {"visible": 1, "infrared": 1}
    assert exact["differences"] == {}
    upper = np.arange(48)[:, None] < 24 + np.zeros((1, 24), int)
    for modality, cameras in {"visible": (1, 2, 4, 5), "infrared": (3, 6)}.items():
        files = [f for camera in cameras for f in (out / f"benchmark/masks/cam{camera}").glob("000[1-8]/*.png")]
        masks = [np.asarray(Image.open(file)) > 127 for file in files]
        mean = fmean((upper & mask).sum() / (upper | mask).sum() for mask in masks)
        assert predicted["iou"][modality] == pytest.approx(mean, abs=1e-6)
    change = predicted["differences"]["R1"]
    assert change["difference"] == pytest.approx(predicted["metrics"]["R1"]["mean"] - exact["metrics"]["R1"]["mean"])
    assert change["low"] <= change["difference"] <= change["high"]
    assert predicted["learnt"] is not None
    text = (out / "mask-quality.md").read_text()
    assert text.count("\n| decode |") == 2
    assert "\n- predicted: by a segmenter that never saw these people\n" in text
    trained = (out / "runs" / "decode" / "exact" / "0" / "config.yaml").read_text()
    assert "segmentation_weight: 60" in trained
    monkeypatch.setattr("csvi.analysis.ablate.train", None)  # nothing is trained again
    assert quality_of_masks(*asked) == 0
    (out / "mask-quality.md").unlink()
    assert quality_of_masks(*asked, "--summary-only") == 0
    assert (out / "mask-quality.md").read_text() == text


@pytest.mark.long
def test_an_experiment_that_a_signal_stops_is_resumed(quality_of_masks, monkeypatch):
    asked = "--kinds", "none", "--seeds", "0"
    with monkeypatch.context() as patch:
        patch.setattr("csvi.analysis.ablate.evaluate_run", lambda run: signal.raise_signal(signal.SIGTERM))
        assert quality_of_masks(*asked) == 75
    assert quality_of_masks(*asked, "--summary-only") == 1
    assert quality_of_masks(*asked) == 0


def test_a_segmenter_that_saw_the_people_is_refused(quality_of_masks, capsys):
    for seed in ("7", "8"):
        assert quality_of_masks("--benchmark-seed", seed) == 1
        assert "people of the seeds 7 and 8" in capsys.readouterr().out


@pytest.mark.long
def test_the_runs_of_an_experiment_are_listed(quality_of_masks, mask_quality, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mask_quality, "training_cost", lambda *_: Cost(1, 1, 60.0, 1, "CPU"))
    assert quality_of_masks("--list", "--seeds", "0", "1", "--epochs", "3") == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    runs = {row[1].strip(): (int(row[3]), float(row[5]), int(row[6])) for row in rows[:-1]}
    # 27 + 27 images to train on and 36 to test on, 64 a batch: 3 steps of a minute, and 36/64 of a batch forward
    assert runs == {"coseg": (16, 3.4, 54), "decode": (16, 3.4, 54), "baseline": (2, 3.2, 6)}
    assert not (tmp_path / "out").exists()


def test_feedback_is_worth_what_it_finds_among_images_that_nobody_judged(benchmark):
    """By hand: the probe is nearest to an image of its person and one of another, and all others are as far from it."""
    found = benchmark("feedback").worth(
        probes=np.array([[1.0, 0, 0]]),
        people=np.array([1]),
        gallery=np.array([[0.8, 0.6, 0], [0.8, 0, 0.6], [0, 0, 1.0], [0, 1.0, 0]]),
        others=np.array([1, 2, 2, 1]),
        judged=2,
    )
    assert (found.probes, found.first, found.mean_precision) == (1, (0, 100), (50, 100))


def test_feedback_is_measured_on_a_run(benchmark, coseg_run, capsys):
    assert run(benchmark("feedback"), [str(coseg_run), "--judged", "3"]) == 0
    assert "3" in capsys.readouterr().out
    assert run(benchmark("feedback"), [str(coseg_run), "--judged", "500"]) == 1
    assert "no probe has a right image behind its first 500" in capsys.readouterr().out


@pytest.mark.long
def test_methods_are_ranked_beside_what_was_published(benchmark, config, sysu_root, tmp_path, monkeypatch):
    ranking = benchmark("ranking")
    assert all(set(ranking.METRICS) <= ranking.published(method)[0].keys() for method in ranking.METHODS)
    monkeypatch.setattr(
        ranking, "write_benchmark", lambda out, synth: shutil.copytree(sysu_root, out, dirs_exist_ok=True)
    )
    monkeypatch.setattr("csvi.runs.evaluation.protocols_of", partial(protocols_of, trials=2))
    config.train.validate_every = 1
    settings, out = tmp_path / "small.yaml", tmp_path / "out"
    save_config(config, settings)
    asked = [str(out), "--preset", "tiny", "--config", str(settings), "--methods", "baseline", "decode", "agw"]
    asked += ["--seeds", "0", "--rates", "0.01"]
    assert run(ranking, [*asked, "--summary-only"]) == 1  # nothing is done yet
    assert run(ranking, asked) == 0
    text = (out / "ranking.md").read_text()
    agw = next(line for line in text.splitlines() if line.startswith("| agw |"))
    assert "| 47.5 | 47.65 | README" in agw
    assert "R1, 3 methods: Kendall's tau" in text
    r1, _ = json.loads((out / "ranking.json").read_text())["agreements"]  # indoors too few have a published figure
    assert r1["published"] == [63.22, 65.86, 47.5]
    assert (out / "ranking.png").stat().st_size > 1000
    monkeypatch.setattr("csvi.analysis.ablate.train", None)  # nothing is trained again
    assert run(ranking, asked) == 0
    assert (out / "ranking.md").read_text() == text
    monkeypatch.undo()
    assert run(ranking, [*asked[:1], "--list", *asked[1:]]) == 0


@pytest.mark.parametrize(("best", "found"), [(0.003, "0.003"), (0.0002, "0.0003"), (0.02, "0.02"), (1e-9, None)])
def test_a_learning_rate_at_the_edge_is_not_the_last_to_be_tried(benchmark, monkeypatch, tmp_path, best, found):
    ranking = benchmark("ranking")
    tried = set()

    def choose(variant, grid, out):
        tried.update(grid["train.lr"])
        rate = min(grid["train.lr"], key=lambda rate: abs(math.log(float(rate) / best)))
        return ranking.Choice(variant, ranking.Variant.of(variant.config, variant.method, [("train.lr", rate)]), [])

    monkeypatch.setattr(ranking, "choose", choose)
    monkeypatch.setattr(ranking.Study, "is_done", lambda self, variant, seed: float(ranking.rate_of(variant)) > 1e-5)
    study = ranking.study_of(ranking.make_parser().parse_args([str(tmp_path)]))
    if found is None:
        assert study.choice("agw", train=False) is None
    else:
        assert ranking.rate_of(study.choice("agw").best) == found
        assert set(ranking.RATES) <= tried
    like = ranking.study_of(ranking.make_parser().parse_args([str(tmp_path / "other"), "--like", str(tmp_path)]))
    if found is None:
        with pytest.raises(CsviError, match="learning rate of agw is not chosen in"):
            like.choice("agw")
    else:
        assert ranking.rate_of(like.choice("agw").best) == found


def test_people_before_grey(benchmark, sysu_root, tmp_path):
    ranking = benchmark("ranking")
    root = tmp_path / "benchmark"
    shutil.copytree(sysu_root, root)
    ranking.write_people(root, tmp_path / "people")
    image = next(root.glob("cam1/*/*.jpg"))
    path = image.relative_to(root)
    mask = np.asarray(Image.open(root / "masks" / path.with_suffix(".png")))
    before, after = (np.asarray(Image.open(folder / path)).astype(int) for folder in (root, tmp_path / "people"))
    assert abs(after - before)[mask == 255].mean() < 5
    assert abs(after - 128)[mask == 0].mean() < 5
    assert len(list((tmp_path / "people").glob("cam*/*/*"))) == len(list(root.glob("cam*/*/*")))


def test_the_images_of_some_cameras(benchmark, sysu_root, tmp_path):
    ranking = benchmark("ranking")
    study = ranking.study_of(ranking.make_parser().parse_args([str(tmp_path), "--cameras", "1", "6", "4"]))
    for _ in range(2):
        ranking.link_cameras(sysu_root, study.images, study.cameras)
    found, whole = (Sysu().read(folder) for folder in (study.images, sysu_root))
    kept = [record for record in whole.test if record.camera in {1, 4, 6}]
    assert [record.path for record in found.test] == [record.path for record in kept]
    assert {record.camera for record in found.train} == {1, 4, 6}
    assert Sysu().protocols(found.test, "seeded", study.images)


@pytest.mark.long
def test_the_cost_of_methods_on_trunks(benchmark, capsys, real_trunk):
    small = ["--height", "64", "--width", "32", "--identities", "2", "--images", "2", "--steps", "1", "--classes", "4"]
    assert run(benchmark("methods"), ["--methods", "agw", "deen", "--backbones", "resnet18", *small]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "resnet18" in line]
    assert [row[0] for row in rows] == ["agw", "deen"]
    assert [row[-1] for row in rows] == ["512", str(6 * 512)]


@pytest.mark.long
def test_the_memory_of_settings_for_small_gpus(benchmark, capsys, real_trunk):
    small = ["--height", "64", "--width", "32", "--identities", "4", "--images", "2", "--steps", "1", "--classes", "4"]
    assert run(benchmark("memory"), ["--backbone", "resnet18", *small]) == 0
    printed = capsys.readouterr().out
    for expected in ("as it is", "accumulate: 2 ", "accumulate: 4 and checkpoint_activations"):
        assert expected in printed
