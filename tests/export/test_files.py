"""Networks as single files: they embed as csvi does, and a file that does not is not kept."""

import json
import sys
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import csvi
from csvi.cli import main
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.export.graph import BATCHES, Graph, embed_with, largest_difference, random_images
from csvi.export.make import FORMATS, export_file, is_ours
from csvi.export.onnx_file import open_onnx, shorten_weights
from csvi.export.reduction import Reduction
from csvi.methods import METHODS, find_method
from csvi.model.net import EmbeddingNet, PartNet
from csvi.model.two_stream import TwoStream
from csvi.model.weights import fingerprint_of
from csvi.paths import check_ours, name_of_folder
from csvi.runs import Run

NETS = {find_method(name).Net: name for name in METHODS}
"""Class of a network → a method that has it."""
QUICK = "select", "segment", "deen"
"""Methods whose network is exported to ONNX, which takes seconds, in each run of the tests; others are slow tests."""


def opened(file):
    """What a file makes of images: the function of them and their modality."""
    if file.suffix == ".onnx":
        return open_onnx(file)
    if file.suffix == ".pt":
        script = torch.jit.load(file)
        return lambda images, modality: script(torch.from_numpy(images), int(modality)).numpy()
    program = torch.export.load(file).module()
    return lambda images, modality: program(torch.from_numpy(images), torch.tensor(int(modality))).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((name, "torchscript") for name in NETS.values()),
        ("coseg", "pt2"),
        *(pytest.param(name, "onnx", marks=() if name in QUICK else pytest.mark.long) for name in NETS.values()),
    ],
)
def test_a_file_embeds_batches_of_any_size_and_either_modality_as_csvi_does(method, kind, net_of, tmp_path):
    net, form = net_of(method), FORMATS[kind]
    file = tmp_path / f"net{form.suffix}"
    form.write["float32"](Graph(net), {}, file)
    check_ours(file, is_ours)
    embed = opened(file)
    assert largest_difference(embed, embed_with(net), 48, 24) < 1e-5
    images = random_images(np.random.default_rng(1), 3, 48, 24, Modality.VISIBLE)
    differ = np.abs(embed(images, 0) - embed(images, 1)).max() > 0.01
    assert differ == (method not in ("pmt", "mpanet"))  # in all others each modality has layers of its own


@pytest.mark.slow
def test_onnx_gives_the_embeddings_that_evaluation_has_left(coseg_onnx, coseg_run):
    run, embed = Run.open(coseg_run), open_onnx(coseg_onnx)
    images = np.stack([run.image(record) for record in run.benchmark.test])
    modality = np.array([int(record.modality) for record in run.benchmark.test])
    for one in Modality:
        of_modality = modality == one
        np.testing.assert_allclose(embed(images[of_modality], one), run.embeddings[of_modality], atol=1e-3)  # 16 bits


def test_onnx_says_what_it_is(coseg_onnx, coseg_run):
    session = onnxruntime.InferenceSession(coseg_onnx)
    assert [(each.name, each.type, each.shape) for each in [*session.get_inputs(), *session.get_outputs()]] == [
        ("image", "tensor(uint8)", ["batch", 48, 24, 3]),
        ("modality", "tensor(int64)", []),
        ("embedding", "tensor(float)", ["batch", 48]),
    ]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["csvi"])
    assert facts == {
        "fingerprint": fingerprint_of(coseg_run), "name": name_of_folder(coseg_run), "method": "coseg",
        "height": 48, "width": 24, "dim": 48, "visible_range": "auto", "infrared_range": "auto", "weights": "float32",
        "version": csvi.__version__,
    }  # fmt: skip


@pytest.fixture(scope="module")
def resnet(real_trunks):
    """The Baseline on a ResNet-18."""
    with real_trunks():
        return PartNet("baseline", 48, 24, 5, "resnet18", parts=3, part_dim=16).eval()


@pytest.fixture(scope="module")
def resnet_onnx(resnet, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "resnet.onnx"
    FORMATS["onnx"].write["float32"](Graph(resnet), {}, file)
    return file


@pytest.mark.slow
def test_onnx_holds_each_weight_once(resnet_onnx, resnet):
    used = [tensor.numel() for name, tensor in resnet.named_parameters() if "classify" not in name]
    assert resnet_onnx.stat().st_size < 4 * sum(used) + 200_000  # and what the layers are


def test_onnx_says_nothing_of_this_machine(coseg_onnx, coseg_run):
    content = coseg_onnx.read_bytes()
    for word in (b"/src/", b"site-packages", str(coseg_run).encode()):
        assert word not in content


def test_weights_of_one_modality_lie_where_onnxruntime_lays_them_out_for_speed(coseg_onnx):
    graph = onnx.load(coseg_onnx).graph
    (choice,) = (node for node in graph.node if node.op_type == "If")
    for branch in choice.attribute:
        convolutions = [node for node in branch.g.node if node.op_type == "Conv"]
        own = {weight.name for weight in branch.g.initializer}
        assert convolutions
        assert all(node.input[1] in own for node in convolutions)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "shorter"), [("float16", 1.9), ("int8", 3.3)])
def test_short_weights_make_a_short_file_that_embeds_nearly_alike(resnet_onnx, tmp_path, weights, shorter):
    model = onnx.load(resnet_onnx)
    shorten_weights(model, weights)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "short.onnx")
    assert resnet_onnx.stat().st_size / (tmp_path / "short.onnx").stat().st_size > shorter
    one, other = open_onnx(resnet_onnx), open_onnx(tmp_path / "short.onnx")
    assert largest_difference(one, other, 48, 24) > 0
    for modality in Modality:
        images = random_images(np.random.default_rng(2), 8, 48, 24, modality)
        parts = (embed(images, modality).reshape(8, 3, 16) for embed in (one, other))
        assert np.prod(list(parts), axis=0).sum(2).min() > 0.98  # cosine of each part


def test_a_weight_in_8_bits_is_off_by_half_a_step_of_its_channel_at_most():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(16, 16, 3, 3)).astype(np.float32) * np.logspace(-3, 3, 16)[:, None, None, None]
    helper, image = onnx.helper, onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16, 3, 3])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 16, 1, 1])
    weight = onnx.numpy_helper.from_array(kernel.astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [result], [weight]))
    shorten_weights(model, "int8")
    whole, scale = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer)
    assert (whole.dtype, scale.shape) == (np.int8, (16, 1, 1, 1))
    assert (np.abs(whole * scale - kernel) <= scale * 0.5001).all()


def test_a_reduction_is_part_of_the_file(net_of, tmp_path):
    net, images = net_of("coseg"), random_images(np.random.default_rng(0), 4, 48, 24, Modality.INFRARED)
    net.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    reduction = Reduction(rng.normal(size=48).astype(np.float32), rng.normal(size=(8, 48)).astype(np.float32))
    reduction.save(tmp_path / "model" / "reduction-8.safetensors", fingerprint_of(tmp_path / "model"))
    options = ["--format", "torchscript", "--dimensions", "8", "--out", str(tmp_path / "short.pt")]
    assert main(["export", str(tmp_path / "model"), *options]) == 0
    embeddings = opened(tmp_path / "short.pt")(images, 1)
    expected = (embed_with(net)(images, 1) - reduction.mean) @ reduction.components.T
    np.testing.assert_allclose(embeddings, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    facts = {"csvi.json": ""}
    torch.jit.load(tmp_path / "short.pt", _extra_files=facts)
    said = json.loads(facts["csvi.json"])
    assert (said["fingerprint"], said["dim"]) == (f"{fingerprint_of(tmp_path / 'model')}-{reduction.name}", 8)


class Long(EmbeddingNet):
    """A network of somebody else whose embeddings hold numbers of a million."""

    def __init__(self):
        super().__init__("theirs:Theirs", 48, 24)
        self.backbone = TwoStream("resnet18", cut=1)

    def forward(self, image, modality):
        features = self.backbone(image, modality).mean((2, 3))
        return 1e6 * features / features.mean()


def test_a_network_whose_embeddings_hold_large_numbers_is_exported(trained, tmp_path):
    torch.manual_seed(0)
    net, file = Long().eval(), tmp_path / "net.pt"
    assert 0 < export_file(trained(net), "torchscript", file) < 1e-5
    images = random_images(np.random.default_rng(1), 3, 48, 24, Modality.VISIBLE)
    embeddings = embed_with(net)(images, 0)
    assert np.abs(opened(file)(images, 0) - embeddings).max() > 1e-4  # by float error alone, as they are so long
    assert embeddings.max() > 1e6


@pytest.mark.parametrize(
    ("numbers", "other", "difference"),
    [
        ([0.6, -0.8], [0.6003, -0.8], 3e-4),
        ([0.001, 0.002], [0.0013, 0.002], 3e-4),  # no number is divided by less than 1
        ([3000.0, -4000.0], [3001.2, -4000.0], 3e-4),
        ([3000.0, -4000.0], [3000.0, -4000.0], 0),
        ([0.6, -0.8], [0.6, np.nan], np.nan),
        ([0.6, np.inf], [0.6, np.inf], np.nan),
    ],
)
def test_a_difference_is_of_a_number_or_a_share_of_the_largest_number_beyond_1(numbers, other, difference):
    """The last batch alone differs."""

    def embed(images, modality):
        return np.tile(np.array(numbers, np.float32), (len(images), 1))

    def embed_otherwise(images, modality):
        embeddings = embed(images, modality)
        if (len(images), modality) == (BATCHES[-1], Modality.INFRARED):
            embeddings[-1] = other
        return embeddings

    with np.errstate(invalid="ignore"):
        found = largest_difference(embed_otherwise, embed, 48, 24)
    assert found == pytest.approx(difference, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("difference", [1.1e-4, float("nan")])
def test_a_file_that_embeds_otherwise_is_not_kept(net_of, trained, tmp_path, monkeypatch, difference):
    file = tmp_path / "net.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/extra/csvi.json", "the one before")
    before = file.read_bytes()
    monkeypatch.setattr("csvi.export.make.largest_difference", lambda *any: difference)
    with pytest.raises(CsviError, match=r"differ from PyTorch's by .*, more than 1e-04: it is not kept"):
        export_file(trained(net_of("coseg")), "torchscript", file)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]


def test_a_file_of_somebody_else_is_never_replaced(net_of, trained, coseg_onnx, tmp_path):
    with zipfile.ZipFile(tmp_path / "theirs.pt2", "w") as archive:
        archive.writestr("weights", "theirs")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "csvi", [], [])), tmp_path / "theirs.onnx")
    (tmp_path / "theirs.pt").write_text("no archive")
    model = trained(net_of("coseg"))
    for kind, form in FORMATS.items():
        file = tmp_path / f"theirs{form.suffix}"
        before = file.read_bytes()
        with pytest.raises(CsviError, match=r"theirs\.\w+ is there and was not written by csvi: name another file"):
            export_file(model, kind, file)
        assert file.read_bytes() == before
    check_ours(coseg_onnx, is_ours)


class FixedBatch(EmbeddingNet):
    """A network of somebody else whose graph only takes batches like the one that it was traced with."""

    def forward(self, image, modality):
        return image.flatten(1)[:, :4] * torch.ones(len(image.tolist()), 1)


class Undecided(EmbeddingNet):
    """A network of somebody else that looks at its numbers, which a graph cannot."""

    def forward(self, image, modality):
        return image.flatten(1)[:, :4] if image.sum() > 0 else image.flatten(1)[:, 4:8]


@pytest.mark.parametrize(("net", "kind"), [(FixedBatch, "torchscript"), (Undecided, "pt2")])
def test_a_network_that_is_no_graph_is_one_sentence(trained, tmp_path, net, kind):
    file = tmp_path / f"net{FORMATS[kind].suffix}"
    with pytest.raises(CsviError, match=f"the network of theirs:Theirs cannot be exported to {kind}: ") as raised:
        export_file(trained(net("theirs:Theirs", 48, 24)), kind, file)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_without_its_library_onnx_is_one_sentence_with_the_command(net_of, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CsviError, match=r"ONNX needs onnx: pip install 'csvi\[export\]'"):
        export_file(trained(net_of("coseg")), "onnx", tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx", "--out", "net.pb"], "net.pb is no name for a file of onnx: it must end in .onnx"),
        (["--format", "pt2", "--out", "net.pt"], "net.pt is no name for a file of pt2: it must end in .pt2"),
        (["--format", "torchscript", "--weights", "int8", "--out", "n.pt"], "are stored in float32, not in int8"),
        (["--format", "onnx", "--push", "a/b", "--out", "net.onnx"], "--push uploads a folder"),
        (["--format", "safetensors", "--dimensions", "8", "--out", "net"], "has the whole network"),
        (["--format", "safetensors", "--weights", "int8", "--out", "net"], "stored in float32 or float16, not in int8"),
        (
            ["--format", "safetensors", "--push", "name", "--out", "net"],
            "'name' is no repository: it must be owner/name",
        ),
        (["--format", "safetensors", "--out", "RUN"], "which no export has: name an empty or a new folder"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(options, message, coseg_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(coseg_run), *(option.replace("RUN", str(coseg_run)) for option in options)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
    assert list(tmp_path.iterdir()) == []
