"""The benchmarks run, notice when what they compare is not the same, and measure what they say."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from csvi.config import DataConfig
from csvi.data.batch import Batch
from csvi.data.records import Modality
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


@pytest.fixture
def evaluation(benchmark):
    return benchmark("evaluation")


def test_three_ways_to_evaluate_agree(evaluation, capsys):
    assert evaluation.main(SMALL) == 0
    assert "1 of 2 trials, scaled" in capsys.readouterr().out


def test_a_difference_is_noticed(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "by_query", lambda *inputs, right=evaluation.by_query: [0.5, *right(*inputs)[1:]])
    assert evaluation.main(SMALL) == 1
    assert "differ by more than" in capsys.readouterr().out


def test_large(evaluation, monkeypatch, capsys):
    monkeypatch.setattr(
        evaluation, "TARGET_BYTES", float("inf")
    )  # the process that runs the tests has done other things
    assert evaluation.main(["--large", *SMALL]) == 0
    assert "GB resident" in capsys.readouterr().out


def test_training(benchmark, capsys):
    training = benchmark("training")
    assert training.main(["--quick", "--methods", "baseline", "coseg", "--peak", "1"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "× bare", "coseg", "as usual", "SGD fused", *["≥ 2.0"] * (not torch.cuda.is_available())):
        assert row in out
    assert training.main(["--quick", "--methods", "baseline", "--no-usual", "--profile"]) == 0
    assert "Self CPU" in capsys.readouterr().out


def test_the_short_form_ends_with_one_table(benchmark, monkeypatch, capsys):
    training = benchmark("training")
    short = benchmark("short")
    quick = {
        "startup": ["--quick"],
        "training": ["--quick --methods baseline", "--quick --methods baseline --no-usual"],
    }
    assert short.main([], quick) == 0
    rows = capsys.readouterr().out.rpartition(" found ")[2]
    on_cpu = not torch.cuda.is_available()  # elsewhere the usual way has no target
    for row in ("csvi --help", "a step of baseline", *["a step as usual"] * on_cpu):
        assert row in rows
    assert rows.count("a step of baseline") == 2
    monkeypatch.setattr(training, "same_baseline", lambda *_: False)
    assert short.main(["--only", "training"], quick) == 1
    assert "losses of the two Baselines differ" in capsys.readouterr().out


def test_training_notices_another_baseline(benchmark, monkeypatch, capsys):
    training = benchmark("training")
    monkeypatch.setattr(
        training, "losses_as_usual", lambda *inputs, right=training.losses_as_usual: 1.01 * right(*inputs)
    )
    assert training.main(["--quick", "--methods", "baseline"]) == 1
    assert "losses of the two Baselines differ" in capsys.readouterr().out


def test_the_usual_way_needs_parts_of_one_height(benchmark, capsys):
    assert benchmark("training").main(["--height", "100"]) == 1
    assert "give a height" in capsys.readouterr().out


def test_embedding(benchmark, capsys):
    assert benchmark("embedding").main(["--quick"]) == 0
    out = capsys.readouterr().out
    for row in ("bare", "cold cache", "warm cache", "≥ 0.95"):
        assert row in out


def test_growth(benchmark, tmp_path, monkeypatch, capsys):
    growth = benchmark("growth")
    monkeypatch.setattr(
        growth, "training_cost", lambda *_: Cost(1, 1, 0.5, 2 * 10**9, "CPU")
    )  # tests/train/test_cost.py
    assert growth.main(["--quick", "--out", str(tmp_path / "performance.png")]) == 0
    assert (tmp_path / "performance.png").stat().st_size > 1000
    out = capsys.readouterr().out
    for row in ("training, coseg", "embedding", "evaluation", "64×32", "GB"):
        assert row in out


def test_loading(benchmark, capsys):
    assert benchmark("loading").main(["--quick", "--step-seconds", "0.01", "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    for expected in ("decoding every epoch", "csvi, images and masks", "loading, first epoch", "waiting for batches"):
        assert expected in printed


def test_loading_beside_training(benchmark, capsys, monkeypatch):
    loading = benchmark("loading")
    steps = []
    monkeypatch.setattr(loading, "training_step", lambda *_: steps.append)
    assert loading.main(["--quick", "--workers", "0"]) == 0
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


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says what is resident in a process"
)
def test_memory(benchmark, capsys):
    loading = benchmark("loading")
    names = loading.sysu_names()
    assert len(names) == len(set(names)) == 34_167
    assert sum(modality == Modality.INFRARED for _, _, modality in names) == 9929 + 1980
    assert loading.main(["--quick", "--memory", "--workers", "1"]) == 0
    assert "worker 1" in capsys.readouterr().out


def test_rendering(benchmark, capsys):
    assert benchmark("rendering").main(["--quick"]) == 0
    assert "images/s of processor time" in capsys.readouterr().out


def test_startup(benchmark, capsys):
    assert benchmark("startup").main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "csvi --help" in printed
    assert "python -c pass" in printed


def test_waiting(benchmark, capsys):
    assert benchmark("waiting").main(["--quick", "--threads=1"]) == 0
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
    assert waiting.main(["--quick"]) == 1
    assert "a process of csvi failed: no memory" in capsys.readouterr().out
    assert len(started) == 4
    assert all(process.poll() is not None for process in started)
