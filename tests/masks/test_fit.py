"""Training of the embedded segmenter, at a size of seconds, and what the shipped one is worth."""

import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from csvi.errors import CsviError, StoppedError
from csvi.masks import fit
from csvi.masks.embedded import FILE, Embedded, save_segmenter
from csvi.masks.find import find_segmenter
from csvi.masks.fit import fit_segmenter, measure, people_of
from csvi.masks.network import SegmenterNet
from csvi.masks.quality import predict
from csvi.masks.settings import FitConfig
from csvi.model.weights import initial_weights
from csvi.synth import SynthConfig, write_benchmark
from csvi.train.stopping import Stop


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """People whom the shipped segmenter never saw, by another seed than its own two."""
    root = tmp_path_factory.mktemp("people")
    write_benchmark(root / "train", SynthConfig("folder", "tiny", 5, 96, 48))
    (root / "test").symlink_to("train")
    return root


@pytest.fixture
def quick(rendered, monkeypatch):
    """Settings of a few steps on small samples of the same few people."""
    monkeypatch.setattr(fit, "SOURCE", (96, 48))
    monkeypatch.setattr(fit, "HARD", 4)
    monkeypatch.setattr(fit, "EVERY", 2)
    monkeypatch.setattr(fit, "write_benchmark", lambda *_: None)
    return FitConfig(steps=4, batch=2, weights="none", workers=0)


@pytest.mark.slow
def test_a_training_that_is_stopped_resumes_as_if_never_stopped(rendered, quick, tmp_path, monkeypatch):
    facts = fit_segmenter(tmp_path / "whole.safetensors", rendered, quick)
    assert set(facts) >= {"settings", "sureness", "iou_visible", "iou_infrared", "iou_hard"}

    class AfterThree(Stop):
        count = 0

        @property
        def requested(self):
            self.count += 1
            return self.count == 3

        @requested.setter
        def requested(self, value):
            pass

    with pytest.raises(CsviError, match=r"parts\.ckpt is no \.safetensors, as which the weights are written"):
        fit_segmenter(tmp_path / "parts.ckpt", rendered, quick)
    with monkeypatch.context() as patched:
        patched.setattr("csvi.train.stopping.Stop", AfterThree)
        with pytest.raises(StoppedError, match="stopped after 3 of 4 steps"):
            fit_segmenter(tmp_path / "parts.safetensors", rendered, quick)
    assert (tmp_path / "parts.ckpt").is_file()
    fit_segmenter(tmp_path / "parts.safetensors", rendered, quick)
    whole, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not (tmp_path / "parts.ckpt").exists()


def test_weights_have_their_name_when_they_have_been_measured(rendered, quick, tmp_path, monkeypatch):
    out, calls = tmp_path / "new" / "out.safetensors", []
    monkeypatch.setattr(fit, "write_benchmark", lambda *call: calls.append(call))

    def measured(*_):
        assert [file.name for file in out.parent.iterdir() if not file.name.startswith(".")] == ["out.ckpt"]
        return {"sureness": 0.5, "sureness_rendered": 0.9}

    monkeypatch.setattr(fit, "measure", measured)
    fit_segmenter(out, rendered, quick)
    assert Embedded(out).sureness == 0.5
    assert list(out.parent.iterdir()) == [out]
    assert calls == [
        (rendered / "train", SynthConfig("folder", "study", 7, 96, 48)),
        (rendered / "test", SynthConfig("folder", "tiny", 8, 96, 48)),
    ]  # others are tested on than are trained on


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_or_of_nothing_is_refused(rendered, quick, tmp_path):
    file = tmp_path / "out.ckpt"
    file.write_bytes(b"nothing")
    with pytest.raises(CsviError, match=r"out.ckpt cannot be resumed from"):
        fit_segmenter(tmp_path / "out.safetensors", rendered, quick)
    torch.save({"settings": {"seed": 3}}, file)
    with pytest.raises(CsviError, match=r"out.ckpt is of other settings"):
        fit_segmenter(tmp_path / "out.safetensors", rendered, quick)


def test_every_layer_is_trained_at_the_end_and_the_first_ones_not_before(rendered, tmp_path):
    people = people_of(rendered / "train")
    config = FitConfig(steps=4, batch=2, weights="none", workers=0, frozen=0.5)
    training = fit._Fit(tmp_path / "t.ckpt", people, None, config)
    first = [p.detach().clone() for p in training.net.encoder[:7].parameters()]
    steps = training.steps()
    next(steps), next(steps)
    assert all(torch.equal(a, b) for a, b in zip(first, training.net.encoder[:7].parameters(), strict=True))
    before = [p.detach().clone() for p in training.net.parameters()]
    next(steps)
    assert all((a != b).any() for a, b in zip(before, training.net.parameters(), strict=True))


def test_any_size_of_image_gives_logits_of_that_size():
    net = SegmenterNet().eval()
    for height, width in ((192, 96), (160, 80), (97, 61)):
        assert net(torch.zeros(1, 3, height, width)).shape == (1, 1, height, width)


def test_a_file_that_is_no_segmenter_is_one_sentence(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(CsviError, match="holds no segmenter"):
        Embedded(file)
    save_segmenter(SegmenterNet(), {"other": 1}, file)
    with pytest.raises(CsviError, match="holds no segmenter"):
        Embedded(file)
    with pytest.raises(CsviError, match="holds no segmenter"):
        find_segmenter(f"embedded={tmp_path / 'none.safetensors'}")


def test_the_shipped_segmenter_is_small_and_says_how_it_was_trained():
    assert FILE.stat().st_size <= 4_000_000
    with safe_open(FILE, "pt") as opened:
        facts = json.loads(opened.metadata()["facts"])
        types = {opened.get_tensor(name).dtype for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    assert types == {torch.float16, torch.int64}
    assert facts["settings"] == {
        name: value for name, value in vars(FitConfig()).items() if name != "workers"
    }  # the command without options makes it
    assert facts["iou_visible"] >= 0.92
    assert facts["iou_infrared"] >= 0.90


@pytest.mark.slow
def test_the_shipped_segmenter_finds_people_whom_it_never_saw(rendered, monkeypatch):
    """At 96 x 48 pixels, less than half of what its own test has, and on hard samples of fixed seeds."""
    monkeypatch.setattr(fit, "HARD", 80)
    people = people_of(rendered / "train")
    assert people.infrared == [(np.ptp(people.images[i], axis=2) == 0).all() for i in range(len(people))]
    facts = measure(find_segmenter("embedded"), people, seed=1)
    assert facts["iou_visible"] > 0.92
    assert facts["iou_infrared"] > 0.90
    assert facts["iou_hard"] > 0.89
    assert facts["iou_hard_below_half"] <= 0.01
    assert facts["nobody_used"] < 0.1


def test_the_shipped_segmenter_takes_crops_of_any_size(rendered):
    people = people_of(rendered / "train")
    images = [
        np.asarray(Image.fromarray(people.images[0]).resize(size))
        for size in ((48, 96), (30, 75), (200, 300), (96, 96))
    ]
    for image, prediction in zip(images, predict(find_segmenter("embedded"), images), strict=True):
        assert prediction.probability.shape == image.shape[:2]
        assert prediction.scores.area > 0.1


@pytest.mark.slow
def test_imagenets_weights_are_where_the_encoder_has_them():
    state = initial_weights("mobilenet_v2", "packaged")
    net = SegmenterNet()
    net.load_pretrained(state)
    reference = torchvision.models.mobilenet_v2(weights=None).features
    reference.load_state_dict(state, strict=False)
    image = torch.rand(1, 3, 64, 32)
    assert torch.equal(net.eval().encoder(image), reference.eval()[:18](image))
    assert not torch.equal(net.encoder[0][0].weight, SegmenterNet().encoder[0][0].weight)
    with pytest.raises(KeyError):
        SegmenterNet().load_pretrained({})
