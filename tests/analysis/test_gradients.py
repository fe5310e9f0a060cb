"""What Section 3.3 says of the rows of Table 3, on networks with random weights."""

import io
import json
from dataclasses import asdict, fields, replace

import pytest
import torch
from rich.console import Console

from csvi.analysis.gradients import Norms, by_loss, gradient_norms, gradients, gradients_figure, gradients_table
from csvi.catalogue import TABLE_3
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.methods import find_method

PAPERS = (*TABLE_3, "coseg+")

HEIGHT, WIDTH = 48, 40
ZERO = Norms(0, 0)


def method_of(name, **settings):
    torch.manual_seed(0)
    kind = find_method(name)
    if "widths" in {field.name for field in fields(kind.Settings)}:
        settings["widths"] = (8, 4)
    built = kind(
        kind.Settings(backbone="resnet18", weights="none", parts=3, part_dim=8, **settings), 4, HEIGHT, WIDTH
    ).eval()
    if name == "segment":
        torch.nn.init.normal_(built.net.guide.project.weight, std=0.01)  # 0 at first
    return built


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(
        image=torch.randn(8, 3, HEIGHT, WIDTH),
        identity=torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]),
        modality=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        mask=torch.rand(8, 1, HEIGHT, WIDTH),
    )


def batch_gradients(method, batch):
    return by_loss(gradient_norms(method, batch))


def positive(*norms):
    return all(value > 0 for norm in norms for value in (norm.visible, norm.infrared))


@pytest.mark.parametrize("name", PAPERS)
def test_which_gradients_there_are(name, batch):
    shared, task = batch_gradients(method_of(name), batch)
    segments, through_shared = name not in ("baseline", "select"), name in ("decode", "coseg", "coseg+")
    for found, reached in ((shared, through_shared), (task, segments)):
        assert positive(found.identity)
        if reached:
            assert positive(found.segmentation, found.within)
        else:
            assert found.segmentation == found.within == ZERO
        if name in ("coseg", "coseg+"):
            assert positive(found.across)
        else:
            assert found.across == ZERO


@pytest.mark.parametrize(
    ("settings", "interacts"),
    [
        ({"weights_from": "leave-one-out"}, True),
        ({"weights_from": "other-modality"}, True),
        ({"weights_to": "decoder"}, True),
        ({"weights_to": "head"}, False),  # the decoder has no weights
        ({"head": False}, True),
        ({"detach": True}, True),  # only the head's losses stop at the weights
        ({"mask_channels": "identity"}, True),
    ],
)
def test_modalities_interact_by_the_weights_of_the_decoder(settings, interacts, batch):
    shared, task = batch_gradients(method_of("coseg", **settings), batch)
    for found in (shared, task):
        assert positive(found.segmentation)
        assert positive(found.across) if interacts else found.across == ZERO


def test_norms_are_those_of_the_loss_worked_out_by_hand(batch):
    """decode: xi_Seg from F_s as a leaf, and both its terms; weights of the losses do not count."""
    method = method_of("decode", segmentation_weight=20.0, identity_weight=3.0)
    leaf = method.net.features(batch.image, batch.modality).detach().requires_grad_()
    logits = method.decoder(leaf)
    target = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(batch.mask, (0, 8)), 4)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    (entropy[:4].mean() + entropy[4:].mean()).backward()
    shared, _ = batch_gradients(method, batch)
    assert shared.segmentation.visible == pytest.approx(float(leaf.grad[:4].norm()), rel=1e-5)
    assert shared.segmentation.infrared == pytest.approx(float(leaf.grad[4:].norm()), rel=1e-5)
    assert shared.segmentation == shared.within
    assert shared.identity == batch_gradients(method_of("decode"), batch)[0].identity
    assert method.settings.identity_weight == 3.0


def test_the_mask_of_select_filters_the_identity_loss(batch):
    """Eq. 20: what it does not show has no gradient, and without any person there is none."""
    method = method_of("select")
    assert positive(batch_gradients(method, batch)[0].identity)
    batch.mask[4:] = 0
    shared, task = batch_gradients(method, batch)
    assert shared.identity.visible > 0
    assert shared.identity.infrared == task.identity.infrared == 0


def test_in_training_mode_batch_norm_would_mix_the_modalities(batch):
    with pytest.raises(CsviError, match="evaluation mode"):
        batch_gradients(method_of("decode").train(), batch)


def test_it_leaves_the_network_as_it_was(batch):
    method = method_of("coseg")
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    batch_gradients(method, batch)
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert not method.net.backbone.shared._forward_hooks


@pytest.fixture
def begun(born, config):
    """Opens a run of a method, whose batches are of four identities with two and two images."""
    config.data.identities, config.data.images = 4, 2
    return born


def test_a_run_is_measured_on_training_batches(begun):
    run = begun("coseg")
    found = gradients(run, batches=2)
    assert (found.run, found.method, found.masks, found.batches, found.images) == (run.name, "coseg", True, 2, 16)
    assert positive(found.shared.across, found.task.across, found.shared.segmentation, found.shared.identity)
    assert found == gradients(run, batches=2) != gradients(run, batches=2, seed=1)
    assert json.loads(json.dumps(asdict(found)))["task"]["across"]["visible"] == found.task.across.visible


def test_the_mean_is_over_the_batches(begun):
    run = begun("decode")
    one, two = gradients(run, batches=1), gradients(run, batches=2)
    assert one.batches == 1
    assert one.shared.identity.visible != two.shared.identity.visible
    assert two.shared.across == ZERO


def test_images_that_training_skipped_are_not_drawn(begun, monkeypatch):
    run, drawn = begun("baseline"), set()
    images = run.training_set
    images.skipped = {number: "damaged" for number, record in enumerate(images.records) if record.identity == 3}

    def measured(method, batch):
        drawn.update(batch.identity.tolist())
        return torch.zeros(2, 4, 2)

    monkeypatch.setattr("csvi.analysis.gradients.gradient_norms", measured)
    gradients(run, batches=4)
    assert drawn == set(images.labels.values()) - {images.labels[3]}


def test_what_is_missing_is_named(begun, tmp_path):
    run = begun("decode")
    (tmp_path / "decode" / "method.safetensors").unlink()
    with pytest.raises(CsviError, match=r"method\.safetensors is missing"):
        gradients(run)


def test_runs_without_masks_have_no_segmentation_loss(begun):
    run = begun("decode")
    without = [replace(record, mask=None) for record in run.benchmark.train]
    run.benchmark = replace(run.benchmark, train=without)
    with pytest.raises(CsviError, match="have no mask"):
        gradients(run)


@pytest.mark.slow
def test_the_figure_and_the_table_hold_every_norm(begun):
    results = [gradients(begun(name), batches=1) for name in ("baseline", "segment", "coseg")]
    figure = gradients_figure(results)
    for axes, name in zip(figure.axes, ("shared", "task"), strict=True):
        tops = [bar.get_y() + bar.get_height() for bar in axes.containers[2]]
        floor = axes.get_ylim()[0]
        assert tops == pytest.approx([floor, floor, getattr(results[2], name).across.visible])
        zeros = [text for text in axes.texts if text.get_text() == "0"]
        assert len(zeros) == {"shared": 8, "task": 6}[name]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(gradients_table(results))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines() if "F_task infrared" in line]
    assert [row.count("0") for row in rows] == [2, 1, 0]
    task = results[2].task
    assert rows[2][-2] == f"{100 * task.across.infrared / task.segmentation.infrared:.1f}"
