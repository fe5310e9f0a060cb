"""Models that embed images: the same numbers as an evaluation, whatever the images come as, and without torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save_file

import csvi
from csvi.data.images import load_image
from csvi.data.records import Modality
from csvi.errors import CsviError
from csvi.model.weights import fingerprint_of
from csvi.runs import Run
from csvi.search.embedder import Embedder, open_embedder
from csvi.search.onnx_embedder import METADATA


@pytest.fixture(scope="session")
def opened(coseg_run):
    return csvi.load(coseg_run)


def test_images_have_the_embeddings_that_are_evaluated(opened, coseg_run):
    run = Run.open(coseg_run)
    records = run.benchmark.test[::7]
    files = [run.benchmark.file(record) for record in records]
    embeddings = opened.embed(files, [record.modality for record in records])
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, run.embed()[::7].numpy(), rtol=0, atol=1e-6)


def test_many_images_of_both_modalities_come_back_in_their_order(opened, sysu_root):
    files = sorted(sysu_root.glob("cam[1236]/*/0001.jpg"))[:75]  # more than a batch
    names = ["infrared" if file.parts[-3] in ("cam3", "cam6") else "visible" for file in files]
    together = opened.embed(files, names)
    for i in (0, 20, 63, 64, 74):
        np.testing.assert_allclose(together[i], opened.embed([files[i]], names[i])[0], rtol=0, atol=1e-6)


def test_files_opened_images_and_arrays_are_the_same(opened, sysu_root):
    file = sysu_root / "cam1/0001/0001.jpg"
    image = Image.open(file)
    found = opened.embed([file, str(file), image, np.asarray(image), np.asarray(image)[::-1]], "visible")
    assert (found[1:4] == found[0]).all()
    assert not np.allclose(found[4], found[0])


def test_an_opened_image_is_turned_as_its_file_is(opened, sysu_root, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(sysu_root / "cam1/0001/0001.jpg").save(tmp_path / "turned.jpg", exif=exif)
    of_file, of_image = opened.embed([tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")], "visible")
    assert (of_file == of_image).all()


def test_the_modality_is_told_by_the_colours(opened, sysu_root):
    day, night = (sysu_root / f"cam{camera}/0001/0001.jpg" for camera in (1, 3))
    grey = np.asarray(Image.open(night).convert("L"))
    told = opened.embed([day, night, grey])
    given = opened.embed([day, night, grey], ["visible", Modality.INFRARED, "infrared"])
    assert (told == given).all()
    assert not np.allclose(opened.embed([day], "infrared"), told[:1])


@pytest.mark.parametrize(
    ("images", "modality", "message"),
    [
        ("a.jpg", "detect", r"takes a list of images, also of a single one: embed\(\[image\]\)"),
        ([3], "detect", "image 0 is a int: give a path"),
        ([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9))], "detect", r"image 1 is .* \(9, 9\) and type float64"),
        ([np.zeros((9, 9, 4), np.uint8)], "detect", r"shape \(9, 9, 4\)"),
        ([np.zeros(9, np.uint8)], "detect", r"shape \(9,\)"),
        (np.zeros((9, 9, 3), np.uint8), "detect", "image 0 is of 3x9 pixels: at least 8"),  # one image, not a list
        ([Image.new("I;16", (9, 9))], "detect", "more than 8 bits a pixel: give the path"),
        (["nowhere.jpg"], "visible", "cannot read the image nowhere.jpg: it is not there"),
        (["a.jpg"], "thermal", "'thermal': it must be visible, infrared or detect"),
        (["a.jpg", "b.jpg"], ["visible"], "2 images and 1 modalities"),
    ],
)
def test_what_is_no_image_is_one_sentence(opened, images, modality, message):
    with pytest.raises(CsviError, match=message):
        opened.embed(images, modality)


def test_no_images_have_no_embeddings(opened):
    assert opened.embed([]).shape == (0, 48)


def test_deep_images_are_read_in_the_range_of_the_run(coseg_run, sysu_root, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(coseg_run, run)
    settings = (run / "config.yaml").read_text().replace("infrared_range: auto", "infrared_range: '1000,2000'")
    (run / "config.yaml").write_text(settings)
    grey = np.asarray(Image.open(sysu_root / "cam3/0001/0001.jpg").convert("L"))
    Image.fromarray((1000 + grey / 255 * 1000).round().astype(np.uint16)).save(tmp_path / "deep.png")
    deep, plain = csvi.load(run).embed([tmp_path / "deep.png", grey])
    assert (deep == plain).all()


def test_a_model_alone_is_the_same_model(opened, coseg_run, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(coseg_run / name, tmp_path)
    alone = csvi.load(str(tmp_path))
    assert alone.fingerprint == opened.fingerprint
    assert (alone.height, alone.width, alone.dim) == (48, 24, 48)
    image = np.arange(48 * 24 * 3, dtype=np.uint8).reshape(48, 24, 3)
    np.testing.assert_allclose(
        alone.embed([image]), opened.embed([image]), rtol=0, atol=0.02
    )  # bfloat16 where it helps


def test_the_fingerprint_is_of_the_weights_that_were_trained(coseg_run, tmp_path):
    fingerprint = fingerprint_of(coseg_run)
    weights = load_file(coseg_run / "model.safetensors")
    rounded = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for metadata, same in (({"fingerprint": fingerprint}, True), ({}, False), ({"fingerprint": "../x"}, False)):
        save_file(rounded, tmp_path / "model.safetensors", {"format": "pt", **metadata})
        assert (fingerprint_of(tmp_path) == fingerprint) is same
    with pytest.raises(CsviError, match="holds no trained model"):
        fingerprint_of(tmp_path / "nowhere")


def test_what_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(CsviError, match="holds no trained model"):
        open_embedder(tmp_path)
    with pytest.raises(CsviError, match=r"there is no folder .*no-such-run: give a run folder"):
        open_embedder(tmp_path / "no-such-run")


def test_a_model_of_images_of_any_size_is_refused(coseg_run, tmp_path):
    shutil.copy(coseg_run / "model.safetensors", tmp_path)
    facts = json.loads((coseg_run / "config.json").read_text()) | {"height": 10**6}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(CsviError, match="height is 1000000: it must be from 16 to 1024"):
        open_embedder(tmp_path)


FACTS = {
    "fingerprint": "0123456789abcdef", "name": "toy", "method": "coseg", "height": 32, "width": 16, "dim": 3,
    "visible_range": "auto", "infrared_range": "100,300", "version": "0.1.0",
}  # fmt: skip


def write_toy(file, facts=FACTS, dim=3):
    """A network in ONNX whose embedding is the mean colour, negative for infrared images."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["modality"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "minus"], ["product"]),
        helper.make_node("Add", ["product", "one"], ["sign"]),
        helper.make_node("Mul", ["mean", "sign"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 32, 16, 3]),
            helper.make_tensor_value_info("modality", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("minus", TensorProto.FLOAT, [], [-2.0]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if facts is not None:
        helper.set_model_props(model, {METADATA: facts if isinstance(facts, str) else json.dumps(facts)})
    onnx.save(model, file)
    return file


@pytest.fixture
def toy(tmp_path):
    return write_toy(tmp_path / "toy.onnx")


def test_a_network_in_onnx_embeds(toy):
    model = csvi.load(toy)
    assert (model.name, model.fingerprint, model.dim, model.height) == ("toy", "0123456789abcdef", 3, 32)
    assert model.data.infrared_range == "100,300"
    images = [np.full((64, 32, 3), (n, 100, 200), np.uint8) for n in range(70)]
    found = model.embed(images, ["infrared" if n % 2 else "visible" for n in range(70)])
    assert found.tolist() == [[s * n, s * 100, s * 200] for n in range(70) for s in [-1 if n % 2 else 1]]


def test_what_a_terminal_would_obey_in_a_strangers_name_is_replaced(tmp_path):
    model = csvi.load(write_toy(tmp_path / "toy.onnx", {**FACTS, "name": "toy\x1b]0;x\x07"}))
    assert (model.name, model.model) == ("toy?]0;x?", str(tmp_path / "toy.onnx"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "it has no 'csvi'"),
        ("{", "Expecting property name"),
        ("[]", r"it is '\[\]'"),
        ("{}", "it has no dim"),
        ({**FACTS, "fingerprint": "../x"}, r"its fingerprint is '\.\./x'"),
        ({**FACTS, "height": "32"}, "height is '32'"),
        ({**FACTS, "height": 10**6}, "height is 1000000: it must be from 16 to 1024"),
        ({**FACTS, "width": 24}, "its graph takes"),
        ({**FACTS, "dim": 4}, "its graph takes"),
        ({**FACTS, "infrared_range": "5,1"}, "infrared_range is '5,1'"),
    ],
)
def test_an_onnx_file_of_something_else_is_one_sentence(tmp_path, facts, message):
    with pytest.raises(CsviError, match=rf"toy.onnx is no network of this version of csvi \(.*{message}.*csvi export"):
        csvi.load(write_toy(tmp_path / "toy.onnx", facts))


def test_a_damaged_or_missing_onnx_file(toy, tmp_path):
    with pytest.raises(CsviError, match=r"gives embeddings of 3 numbers: export .* --dimensions 2"):
        csvi.load(toy, 2)
    toy.write_bytes(toy.read_bytes()[:-100])
    with pytest.raises(CsviError, match=r"toy.onnx is damaged or no ONNX model"):
        csvi.load(toy)
    with pytest.raises(CsviError, match=r"cannot read .*nowhere.onnx: No such file"):
        csvi.load(tmp_path / "nowhere.onnx")


def test_without_onnxruntime_the_extra_is_named(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CsviError, match=r"toy.onnx needs onnxruntime: pip install 'csvi\[onnx\]'"):
        csvi.load(toy)


def test_csvi_embed_with_onnx_never_imports_torch(toy, sysu_root, tmp_path):
    code = f"""
import sys
sys.modules["torch"] = None  # which makes importing it fail
from csvi.cli import main
sys.exit(main(["embed", {str(sysu_root)!r}, "--run", {str(toy)!r}, "--out", {str(tmp_path / "f.npz")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "embedded: 240 images, 3 numbers of 32 bits each; 240 now" in done.stdout
    with np.load(tmp_path / "f.npz") as arrays:
        row = arrays["path"].tolist().index("cam3/0001/0001.jpg")
        pixels = np.asarray(load_image(sysu_root / "cam3/0001/0001.jpg").resize((16, 32), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(arrays["embedding"][row], -pixels.mean((0, 1)), rtol=1e-5)


def test_the_contract_is_one_method(sysu_root):
    """Whoever embeds by other means implements it alone."""

    class Mean(Embedder):
        def embed_pixels(self, images, modality):
            return images.mean((1, 2), dtype=np.float32)

    from csvi.config import DataConfig

    embedder = Mean("mean", "0" * 16, "0" * 16, 3, DataConfig(height=32, width=16))
    assert embedder.embed([sysu_root / "cam1/0001/0001.jpg"]).shape == (1, 3)


def test_the_network_can_still_be_differentiated(opened):
    """The page explains what the network looks at by gradients."""
    image = torch.zeros(1, 3, 48, 24, requires_grad=True)
    opened.net(image, 0).sum().backward()
    assert image.grad is not None
