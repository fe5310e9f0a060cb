"""Figures about training images number classes as training did, whatever was skipped."""

import json
import shutil

import pytest
import torch

from csvi.analysis.gradients import by_loss, gradient_norms
from csvi.cli import main
from csvi.data.sampler import CrossModalitySampler
from csvi.runs import Run
from csvi.runs.network_files import read_classes, save_method
from csvi.train.loop import train

TRUTH = {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6}
"""Identity → class: of the third person no infrared image can be read."""


@pytest.fixture
def broken(config, sysu_root, tmp_path):
    """A run trained on data of which images of three people are broken, one of them in the whole infrared."""
    root = shutil.copytree(sysu_root, tmp_path / "data")
    for camera in (3, 6):
        for file in (root / f"cam{camera}" / "0003").iterdir():
            file.write_bytes(b"no image")
    (root / "cam1/0005/0001.jpg").write_bytes(b"")
    (root / "masks/cam2/0006/0002.png").unlink()
    config.data.root, config.data.cache, config.data.on_error = str(root), str(tmp_path / "cache"), "skip"
    config.data.identities = 7
    train(config, tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "skipped.json").read_text())) == 6
    assert read_classes(tmp_path / "run") == list(TRUTH)
    return tmp_path / "run"


def used(run):
    """The images that it was trained on, one by one."""
    skipped = json.loads((run.folder / "skipped.json").read_text())
    return [r for r in run.benchmark.train if r.path not in skipped and r.identity in TRUTH]


def by_identity(run):
    """Each identity's images in one batch, and the class of each."""
    for identity, label in TRUTH.items():
        yield run.batch([record for record in used(run) if record.identity == identity]), label


def teach(run):
    """Fit the last layer of the extra head to the training images, so that it names most of them."""
    method, parts, labels = run.method, [], []
    for layer in method.modules():  # as it was born, a network makes next to nothing of any image
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1
    batch = run.batch(used(run))
    with torch.no_grad():
        identity = torch.tensor([TRUTH[int(identity)] for identity in batch.identity])
        method.train()(batch._replace(identity=identity), 0)
        method.eval()
        for batch, label in by_identity(run):
            features = method.features(batch)
            seen, _ = method.head(method.ccwg(features, batch.identity, batch.modality) * features)
            parts.append(seen)
            labels += [label] * len(seen)
    wanted = torch.nn.functional.one_hot(torch.tensor(labels), 7).double()
    for number, seen in enumerate(torch.cat(parts).double().unbind(1)):
        extended = torch.cat([seen, torch.ones(len(seen), 1)], 1)
        fitted = torch.linalg.pinv(extended, rtol=1e-3) @ wanted
        method.head.classify.weight.data[number] = fitted[:-1].float()
        method.head.classify.bias.data[number] = fitted[-1].float()
    save_method(method, list(TRUTH), run.folder)


@pytest.mark.slow
def test_the_leak_is_of_the_classes_of_training(broken, capsys):
    run = Run.open(broken)
    teach(run)
    right, shifted = [], []  # shifted: where the classes of all eight people are counted
    with torch.no_grad():
        for batch, label in by_identity(run):
            features = run.method.features(batch)
            _, scores = run.method.head(run.method.ccwg(features, batch.identity, batch.modality) * features)
            named = scores.sum(1).argmax(1)
            right.append(named == label)
            shifted.append(named == label + (label > 1))
    truth, wrong = (float(torch.cat(hits).double().mean()) for hits in (right, shifted))
    assert truth > 2 * wrong
    assert main(["figure", "leak", str(broken)]) == 0
    (found,) = json.loads((broken / "figures" / "leak.json").read_text())
    assert found["own"]["all"] == pytest.approx(truth)
    assert (found["identities"], found["images"]) == (7, 7 * 12 - 2)


@pytest.mark.slow
def test_gradients_are_of_the_classes_of_training(broken):
    assert main(["figure", "gradients", str(broken)]) == 0
    (found,) = json.loads((broken / "figures" / "gradients.json").read_text())
    run = Run.open(broken)
    records, skipped = run.benchmark.train, set(json.loads((broken / "skipped.json").read_text()))
    gone = {i for i, record in enumerate(records) if record.path in skipped}
    batches = list(CrossModalitySampler(records, 7, 4, seed=0, skipped=gone))
    assert found["batches"] == len(batches)
    norms = []
    for drawn in batches:
        batch = run.batch([records[sample.image] for sample in drawn])
        labels = torch.tensor([TRUTH[int(identity)] for identity in batch.identity])
        norms.append(by_loss(gradient_norms(run.method, batch._replace(identity=labels)))[0].identity)
    for modality in ("visible", "infrared"):
        mean = sum(getattr(norm, modality) for norm in norms) / len(norms)
        assert found["shared"]["identity"][modality] == pytest.approx(mean, rel=1e-4)
