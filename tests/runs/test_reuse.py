"""What evaluation has left is used again only if nothing that it depends on has changed."""

import json
import os
import re
import shutil

import pytest
import torch

from csvi.analysis.tables import print_evaluation
from csvi.errors import CsviError
from csvi.runs import Options, Run
from csvi.runs.evaluation import evaluate_run, evaluated, kept_evaluation, save_evaluation


@pytest.fixture
def run(coseg_run, tmp_path):
    """A folder of its own with a run that is trained and evaluated."""
    return shutil.copytree(coseg_run, tmp_path / "run")


@pytest.fixture
def table(run, sysu_root, tmp_path):
    """The same images as people's own: a table says who is on them."""
    root = tmp_path / "own"
    shutil.copytree(sysu_root, root)
    lines = ["path,identity,camera,modality,split,mask"]
    for file in sorted(root.glob("cam*/00*/*.jpg")):
        camera, person = int(file.parts[-3][3:]), int(file.parts[-2])
        split = "test" if person > 12 else "train"
        modality = "infrared" if camera in (3, 6) else "visible"
        path = file.relative_to(root)
        lines.append(f"{path},{person},{camera},{modality},{split},masks/{path.with_suffix('.png')}")
    (root / "images.csv").write_text("\n".join(lines) + "\n")
    shutil.rmtree(root / "exp")
    return root / "images.csv"


def opened(run, table):
    return Run.open(run, Options(root=str(table.parent)))


def saved(run, table):
    first = opened(run, table)
    save_evaluation(evaluate_run(first), first)
    assert kept_evaluation(opened(run, table)) is not None
    assert opened(run, table).kept_embeddings() is not None


def test_images_of_another_size_are_embedded_anew(run):
    assert Run.open(run).kept_embeddings() is not None
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace("width: 24", "width: 32"))
    assert Run.open(run).data.width == 32
    assert Run.open(run).kept_embeddings() is None


def test_other_cameras_in_the_table(run, table):
    saved(run, table)
    table.write_text(table.read_text().replace(",4,visible", ",5,visible"))
    assert kept_evaluation(opened(run, table)) is None
    assert opened(run, table).kept_embeddings() is not None  # the same images through the same streams


def test_cameras_that_have_names_are_printed_with_them(run, table, capsys):
    text = table.read_text()
    for camera, name in ((1, "gate"), (4, "hall"), (6, "roof")):
        text = re.sub(rf",{camera},(visible|infrared)", rf",{name},\1", text)
    table.write_text(text)
    saved(run, table)
    evaluation = kept_evaluation(opened(run, table))
    assert evaluation.cameras == {"1": "2", "2": "3", "3": "5", "4": "gate", "5": "hall", "6": "roof"}
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert all(f"in {name}" in printed for name in ("2", "5", "gate", "hall"))
    assert all(f"\n of {name} " in printed or f"\nof {name} " in printed for name in ("3", "roof"))
    table.write_text(text.replace(",gate,", ",port,"))
    assert kept_evaluation(opened(run, table)) is None


@pytest.mark.slow
def test_other_identities_in_the_table(run, table):
    saved(run, table)
    table.write_text(table.read_text().replace(",13,", ",99,"))
    assert kept_evaluation(opened(run, table)) is None


def test_other_modalities_in_the_table(run, table):
    saved(run, table)
    table.write_text(table.read_text().replace(",6,infrared", ",6,visible"))
    assert opened(run, table).kept_embeddings() is None


def test_other_masks(run, table):
    saved(run, table)
    mask = next((table.parent / "masks").glob("cam1/0013/*.png"))
    os.utime(mask, ns=(1, 1))
    assert kept_evaluation(opened(run, table)) is None


def test_a_gallery_that_is_named_is_the_default_one(run):
    assert kept_evaluation(Run.open(run, Options(gallery="seeded"))) == kept_evaluation(Run.open(run))
    assert kept_evaluation(Run.open(run)) is not None


def test_without_what_training_added(run):
    """The network alone is evaluated again, as its masks are not known any more."""
    (run / "method.safetensors").unlink()
    assert kept_evaluation(Run.open(run)) is None
    assert evaluated(Run.open(run)).masks == {}


def test_a_damaged_method_stops_nothing_that_needs_no_masks(run, table):
    (run / "method.safetensors").write_bytes(b"damaged")
    shutil.rmtree(table.parent / "masks")
    table.write_text("\n".join(line.rpartition(",")[0] + "," for line in table.read_text().splitlines()[1:]))
    table.write_text("path,identity,camera,modality,split,mask\n" + table.read_text() + "\n")
    assert evaluate_run(opened(run, table)).masks == {}


def test_a_run_before_its_first_epoch(run):
    (run / "model.safetensors").unlink()
    with pytest.raises(CsviError, match=r"holds no trained model .*has its training finished an epoch"):
        evaluate_run(Run.open(run))


def test_an_image_that_is_gone(run, table):
    image = json.loads((run / "evaluation.json").read_text()) and next(table.parent.glob("cam1/0013/*.jpg"))
    image.unlink()
    with pytest.raises(CsviError, match=r"cannot read the image .*cam1/0013"):
        evaluate_run(opened(run, table))


def test_weights_are_no_inference_tensors_whoever_asks_first(run):
    with torch.inference_mode():
        method = Run.open(run).method
    assert not any(parameter.is_inference() for parameter in method.parameters())
