"""The demo from nothing to a report, on the tiny benchmark; `make demo` runs it at its own size."""

import json

import pytest
import yaml

from csvi.commands import demo
from csvi.config import shipped_config
from csvi.errors import CsviError
from csvi.masks.make import read_list
from csvi.runs import load_config
from csvi.synth import SynthConfig


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The demo's settings, but for size and length."""
    settings = yaml.safe_load(shipped_config("demo").read_text())
    settings["data"] |= {"height": 48, "width": 24, "identities": 4, "images": 2}
    settings["method"] |= {"part_dim": 32}
    settings["train"] |= {"epochs": 1}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(demo, "shipped_config", lambda name: file)
    monkeypatch.setattr(
        demo,
        "SynthConfig",
        lambda preset, seed: SynthConfig(preset="tiny", seed=seed, height=48, width=24, processes=1),
    )
    return settings


@pytest.mark.slow
def test_from_nothing_to_a_report_and_not_twice(small, tmp_path, monkeypatch, capsys, real_trunk):
    report = demo.run_demo(tmp_path / "demo", seed=3)
    assert report == tmp_path / "demo" / "run" / "report.html"
    assert "Synthetic data." in report.read_text()
    evaluation = json.loads((tmp_path / "demo" / "run" / "evaluation.json").read_text())
    assert evaluation["synthetic"]
    assert set(evaluation["masks"]) == {"visible", "infrared"}
    steps = (tmp_path / "demo" / "run" / "metrics.jsonl").read_text()
    image = tmp_path / "demo" / "benchmark" / "cam1" / "0001" / "0001.jpg"
    written = image.stat().st_mtime_ns

    monkeypatch.setattr("csvi.runs.embeddings.embed", lambda *_: pytest.fail("embedded again"))
    demo.run_demo(tmp_path / "demo", seed=3)
    assert (tmp_path / "demo" / "run" / "metrics.jsonl").read_text() == steps
    assert image.stat().st_mtime_ns == written
    assert capsys.readouterr().out.count("all single-shot") == 2


@pytest.mark.long
def test_predicted_masks_are_trained_on_and_the_exact_ones_compared_with(
    small, tmp_path, monkeypatch, capsys, real_trunk
):
    out = tmp_path / "demo"
    report = demo.run_demo(out, seed=3, masks="predicted")
    assert report == out / "run-predicted" / "report.html"
    made = capsys.readouterr().out
    used = sorted((out / "masks").glob("cam*/*/*.png"))
    assert f"{len(used)} of {len(read_list(out / 'masks'))} masks are used" in made
    config = load_config(out / "run-predicted" / "config.yaml")
    assert (config.data.masks, config.data.without_mask) == (str(out / "masks"), "train")
    masks = json.loads((out / "run-predicted" / "evaluation.json").read_text())["masks"]
    tested = sum(
        len(list((out / "benchmark").glob(f"cam*/{person}/*"))) for person in people(out / "benchmark", "test")
    )
    assert sum(of_modality["images"] for of_modality in masks.values()) == tested > 0
    assert not any((out / "masks").glob(f"cam*/{people(out / 'benchmark', 'test')[0]}"))

    monkeypatch.setattr("csvi.masks.embedded.Embedded.probabilities", lambda *_: pytest.fail("predicted again"))
    demo.run_demo(out, seed=3, masks="predicted")


def people(root, split):
    return [f"{int(identity):04d}" for identity in (root / "exp" / f"{split}_id.txt").read_text().split(",")]


def test_missing_weights_are_said_before_anything_is_rendered(small, tmp_path, monkeypatch):
    monkeypatch.setattr("csvi.model.weights._PACKAGE", "no_such_package")
    with pytest.raises(CsviError, match=r"csvi\[demo\]"):
        demo.run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_checked_before_anything_is_rendered(small, tmp_path, seed):
    with pytest.raises(CsviError, match=f"seed is {seed}"):
        demo.run_demo(tmp_path / "demo", seed)
    assert not (tmp_path / "demo").exists()
