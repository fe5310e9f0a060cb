"""What training, evaluation and export expect of a method: every registered one is put through the same checks."""

import ast
import dataclasses
import inspect
import re
import textwrap

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from csvi.config import DataConfig, MethodSettings, TrainConfig
from csvi.data import LAYOUTS, Modality, protocols_of, read_benchmark
from csvi.data.batch import Batch
from csvi.evaluate.definition import METRICS
from csvi.fabric import make_fabric
from csvi.methods import METHODS, Method, find_method
from csvi.model.two_stream import Route
from csvi.runs.embeddings import embed
from csvi.runs.network_files import load_method, load_net, save_method
from csvi.train.optimizer import build_optimizer

pytestmark = pytest.mark.parametrize("case", [*METHODS, "pmt on vit_tiny"])
NOT_LEARNED = {"net.attend.v.bias"}
"""Gradients that are 0 but for rounding. The bias of v in DDAG's attention of parts: it adds u_p . v to all scores of a
row, which its softmax does not see."""


@pytest.fixture
def name(case):
    return case.partition(" on ")[0]


@pytest.fixture
def backbone(case):
    return case.partition(" on ")[2] or "mobilenet_v2"


@pytest.fixture
def method(build, name):
    """In its second epoch: in the first, a loss may have the weight 0."""
    method = build(name)
    method.begin_epoch(1)
    return method


@pytest.fixture
def batch(method, batch_of):
    return batch_of(method.views(DataConfig()))


def total(terms):
    return torch.stack(list(terms.values())).sum()


def step(method, optimizer, batch, number):
    """Train one step; returns the loss terms."""
    terms = method(batch, number)
    optimizer.zero_grad(set_to_none=True)
    total(terms).backward()
    optimizer.step()
    return {term: value.detach() for term, value in terms.items()}


def started(method, batch, steps=2):
    """The optimiser of a method that has been trained these steps, and the loss terms of each."""
    optimizer = build_optimizer(method.groups(TrainConfig()), TrainConfig())
    return optimizer, [step(method, optimizer, batch, number) for number in range(steps)]


def trained(method, batch):
    """A method whose weights and running statistics are not the initial ones, ready to embed."""
    started(method, batch)
    return method.eval()


def test_two_steps_have_finite_and_positive_terms(method, batch):
    _, (first, second) = started(method, batch)
    assert first.keys() == second.keys()
    for terms in (first, second):
        assert all(term.shape == () and term.isfinite() and term > 0 for term in terms.values())


def test_a_gradient_reaches_every_parameter(build, batch, name):
    unreached = []
    for seed in range(4):  # a ReLU with a single channel may be off for every image
        method = build(name, seed)
        method.begin_epoch(1)
        started(method, batch, steps=1)  # what is 0 at first shields others
        method.zero_grad()
        total(method(batch, 1)).backward()
        assert [key for key, parameter in method.named_parameters() if parameter.grad is None] == []
        learned = ((key, parameter) for key, parameter in method.named_parameters() if key not in NOT_LEARNED)
        found = [key for key, parameter in learned if not parameter.grad.abs().sum() > 0]
        unreached = [key for key in found if seed == 0 or key in unreached]
        if not unreached:
            break
    assert unreached == []


def test_a_resumed_method_takes_the_same_step_bit_for_bit(build, method, batch, name, tmp_path):
    optimizer, _ = started(method, batch)
    torch.save((method.state_dict(), optimizer.state_dict()), tmp_path / "last.ckpt")
    other = build(name, seed=1)
    other_optimizer = build_optimizer(other.groups(TrainConfig()), TrainConfig())
    state, of_optimizer = torch.load(tmp_path / "last.ckpt", weights_only=True)
    other.load_state_dict(state)
    other_optimizer.load_state_dict(of_optimizer)
    assert step(method, optimizer, batch, 2) == step(other, other_optimizer, batch, 2)
    found = other.state_dict()
    assert all(torch.equal(tensor, found[key]) for key, tensor in method.state_dict().items())


def test_a_subclass_may_have_a_network_of_its_own(build, name, monkeypatch):
    kind = find_method(name)
    own = type("OwnNet", (kind.Net,), {})
    monkeypatch.setattr(kind, "Net", own)
    assert type(build(name).net) is own


def test_the_network_embeds_alone_whatever_it_was_trained_with(method, batch, name, tmp_path):
    net = trained(method, batch).net
    embedding = net(batch.image, batch.modality)
    assert embedding.ndim == 2
    assert len(embedding) == len(batch.image)
    net.save_pretrained(tmp_path / "alone")
    save_method(method, [2, 3, 5, 7], tmp_path)
    for again in (type(net).from_pretrained(str(tmp_path / "alone")), load_net(tmp_path)):
        assert type(again) is find_method(name).Net
        assert (again.method, again.height, again.width) == (name, net.height, net.width)
        assert torch.equal(again.eval()(batch.image, batch.modality), embedding)


def test_the_average_of_an_image_and_its_mirror_image_is_that_of_its_mirror_image(method, batch):
    net, fabric = trained(method, batch).net, make_fabric("32-true")
    mirrored = batch._replace(image=batch.image.flip(3))
    plain = embed(net, [batch], fabric)
    averaged, of_mirrored = (embed(net, [images], fabric, flip=True) for images in (batch, mirrored))
    torch.testing.assert_close(of_mirrored, averaged)
    torch.testing.assert_close(averaged.norm(dim=1), plain.norm(dim=1))
    assert not torch.allclose(averaged, plain)
    torch.testing.assert_close(net.average([plain, plain]), plain)


def test_masks_are_probabilities_at_the_size_of_the_images_or_there_are_none(method, batch):
    trained(method, batch)
    with torch.no_grad():
        masks = method.predict_masks(batch._replace(identity=batch.identity + 1000, mask=None))
    assert (masks is not None) == method.predicts_masks
    if masks is not None:
        assert masks.shape == batch.mask.shape
        assert masks.dtype == torch.float32
        assert ((masks > 0) & (masks < 1)).all()


def test_all_of_it_comes_back_from_a_run_folder(config_of, method, batch, name, tmp_path):
    trained(method, batch)
    save_method(method, [2, 3, 5, 7], tmp_path)
    again, classes = load_method(tmp_path, config_of(name), load_net(tmp_path))
    assert classes == [2, 3, 5, 7]
    found = again.state_dict()
    assert all(torch.equal(tensor, found[key]) for key, tensor in method.state_dict().items())


def test_masks_are_needed_by_those_that_say_so(method, batch):
    if not method.needs_masks:
        terms = method(batch._replace(mask=None), 0)
        assert terms == method(batch, 0)
    else:
        assert total(method(batch, 0)) != total(method(batch._replace(mask=1 - batch.mask), 0))


def test_images_without_a_mask_have_no_part_in_the_mask_loss(method, batch):
    has_mask = torch.arange(len(batch.image)) % 3 > 0
    terms = [
        method(batch._replace(has_mask=has_mask, mask=torch.where(has_mask[:, None, None, None], batch.mask, fill)), 0)
        for fill in (0.0, 1.0)
    ]
    assert terms[0] == terms[1]  # whatever stands there
    every, nobody = (method(batch._replace(has_mask=has_mask), 0) for has_mask in (has_mask | True, has_mask & False))
    assert every == method(batch, 0)
    assert (total(terms[0]) != total(every)) == method.needs_masks
    assert [name for name, term in nobody.items() if term == 0] == [name for name in every if "segmentation" in name]


def test_a_batch_in_which_nobody_has_a_mask_reaches_every_parameter_without_nan(method, batch):
    """Processes that train together wait for the gradient of every parameter."""
    total(method(batch._replace(has_mask=torch.zeros(len(batch.image), dtype=torch.bool)), 0)).backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def test_every_parameter_is_in_one_group(method):
    train = TrainConfig(lr=0.5, lr_pretrained=0.1)
    in_groups = [id(parameter) for group in method.groups(train) for parameter in group["params"]]
    assert sorted(in_groups) == sorted(id(parameter) for parameter in method.parameters())


def test_views_are_lists_of_operations_for_both_modalities(method):
    views = method.views(DataConfig())
    assert set(views) == set(Modality)
    assert all(len(of_modality) > 0 for of_modality in views.values())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_32_bits_under_autocast(method, batch, precision):
    exact = method(batch, 0)
    with torch.autocast("cpu", precision):
        terms = method(batch, 0)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    torch.testing.assert_close(terms, exact, rtol=0.1, atol=0.01)


MODALITIES = {"in order": [0, 0, 0, 0, 1, 1, 1, 1], "mixed": [0, 1, 0, 1, 0, 1, 0, 1], "infrared": [1] * 8}


@pytest.mark.parametrize("modality", ["in order", "mixed", pytest.param("infrared", marks=pytest.mark.long)])
def test_a_step_does_not_wait_for_the_device(build, name, modality):
    """On a GPU that need not be there: tensors have shapes and no values, and whatever asks for a value fails."""
    settings = {} if modality == "in order" else {"mask_channels": "identity", "center_reduction": "mean"}
    modality = torch.tensor(MODALITIES[modality])
    with torch.device("meta"):
        method = build(name, **settings)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        method.to_empty(device="cuda")
        batch = Batch(
            image=torch.empty(8, 3, 48, 40), mask=torch.empty(8, 1, 48, 40),
            identity=torch.empty(8, dtype=torch.int64), modality=torch.empty(8, dtype=torch.int64),
            route=Route.of(modality, len(modality), torch.device("cuda")),
            has_mask=torch.empty(8, dtype=torch.bool) if settings else None,
            view=torch.empty(8, dtype=torch.int64) if settings else None,
        )  # fmt: skip
        terms = method(batch, 0)
    assert {term.device.type for term in terms.values()} == {"cuda"}


def documented(settings):
    """Names of the fields of a dataclass, its bases included, that a docstring follows."""
    names = set()
    for kind in settings.__mro__:
        if dataclasses.is_dataclass(kind):
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            for field, after in zip(body.body, body.body[1:], strict=False):
                says = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and says and after.value.value.strip():
                    names.add(field.target.id)
    return names


def test_every_setting_says_what_it_is(name):
    settings = find_method(name).Settings
    assert issubclass(settings, MethodSettings)
    assert {field.name for field in dataclasses.fields(settings)} - documented(settings) == set()
    assert settings().name == name


def test_published_figures_have_a_source_and_names_that_are_known(name, sysu_root):
    kind = find_method(name)
    assert issubclass(kind, Method)
    assert kind.title
    assert kind.paper
    if kind.published is None:
        return
    assert re.search(r"Tables? \d|README", kind.published.source)
    assert kind.published.metrics.keys() <= LAYOUTS.keys()
    benchmark = read_benchmark(DataConfig(root=str(sysu_root)))
    assert kind.published.metrics["sysu"].keys() <= {protocol.name for protocol in protocols_of(benchmark)}
    for protocols in kind.published.metrics.values():
        for metrics in protocols.values():
            assert all(0 < value < 100 for value in metrics.values())
            assert metrics.keys() <= METRICS.keys()
