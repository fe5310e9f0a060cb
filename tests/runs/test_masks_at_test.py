"""Selection by masks at test: an evaluation reads them, and whatever else embeds refuses."""

import shutil

import numpy as np
import pytest
import torch

from csvi.cli import main
from csvi.data.masks import read_mask
from csvi.errors import CsviError
from csvi.methods.select import Select
from csvi.runs import Options, Run, evaluate_run
from csvi.runs.evaluation import save_evaluation
from csvi.train.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("masks-at-test") / "run"


@pytest.fixture
def run(config, trained, tmp_path):
    """Trained and validated with masks."""
    if not trained.exists():
        config.method = Select.Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=16, test_masks=True)
        config.train.validate_every = 1
        train(config, trained)
    return shutil.copytree(trained, tmp_path / "run")


def embedded(run, records, mirrored=False):
    """Test images with their masks read from their files, or the mirror images of both."""
    batch = run.batch(records)
    masks = [read_mask(record.mask, 48, 24, 255) if record.mask else np.zeros((48, 24), np.uint8) for record in records]
    mask = torch.from_numpy(np.stack(masks))[:, None] / 255
    has_mask = torch.tensor([record.mask is not None for record in records])
    image, mask = (of.flip(3) if mirrored else of for of in (batch.image, mask))
    with torch.inference_mode():
        return run.net(image, batch.modality, mask, has_mask)


@pytest.mark.slow
def test_an_evaluation_takes_the_masks_of_the_test_images(run):
    opened = Run.open(run)
    evaluate_run(opened)
    plain, mirrored = (embedded(opened, opened.benchmark.test, flip) for flip in (False, True))
    torch.testing.assert_close(opened.embeddings, plain, atol=1e-3, rtol=0)
    flipped = Run.open(run, Options(flip=True)).embed()
    torch.testing.assert_close(flipped, opened.net.average([plain, mirrored]), atol=1e-3, rtol=0)


def test_embeddings_of_other_masks_are_not_used_again(run, sysu_root, tmp_path):
    opened = Run.open(run)
    save_evaluation(evaluate_run(opened), opened)
    assert Run.open(run).kept_embeddings() is not None
    masks = shutil.copytree(sysu_root / "masks", tmp_path / "masks")
    assert Run.open(run, Options(masks=str(masks))).kept_embeddings() is None


def test_images_without_a_mask_are_refused_or_whole_as_in_training(run, sysu_root, tmp_path):
    masks = shutil.copytree(sysu_root / "masks", tmp_path / "masks")
    for file in masks.glob("cam*/*/0001.png"):
        file.unlink()
    opened = Run.open(run, Options(masks=str(masks)))
    with pytest.raises(CsviError, match=r"the image .*0001\.jpg has no mask"):
        opened.embed()
    opened.data.without_mask = "train"
    torch.testing.assert_close(opened.embed(), embedded(opened, opened.benchmark.test), atol=1e-3, rtol=0)


def test_without_any_mask_the_command_that_makes_them_is_named(run, sysu_root, tmp_path):
    root = shutil.copytree(sysu_root, tmp_path / "data", ignore=shutil.ignore_patterns("masks"))
    message = (
        rf"selects features by masks at test \(method.test_masks\), and no test image of .*csvi masks {root} --out"
    )
    with pytest.raises(CsviError, match=message):
        evaluate_run(Run.open(run, Options(root=str(root))))


def test_whatever_else_embeds_refuses(run, sysu_root, tmp_path, capsys):
    out = tmp_path / "features.npz"
    assert main(["embed", str(sysu_root), "--run", str(run), "--out", str(out)]) != 0
    assert "only csvi evaluate gives them" in capsys.readouterr().err
    assert not out.exists()
