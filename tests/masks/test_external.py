"""Segmenters of others: what a model is fed, what becomes of its answer, and how each fault is told."""

import re
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from csvi.errors import CsviError
from csvi.masks.external import Description, Input, ModelFile, Output, open_model_file, read_description
from csvi.masks.find import TORCHVISION, described, find_segmenter
from csvi.masks.runtimes import Port
from csvi.masks.segmenter import Segmenter, Several
from csvi.masks.torchvision_models import MaskOfPerson
from csvi.paths import digest_of

PAGE = Path(__file__).parents[2] / "docs" / "masks.md"


def onnx_model(file, shapes=((1, 3, 32, 32),), operators=("Identity",), kind="FLOAT"):
    """Write a model with an output for each operator, a function of its last input."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, code = onnx.helper, getattr(onnx.TensorProto, kind)
    inputs = [helper.make_tensor_value_info(f"image{n}", code, shape) for n, shape in enumerate(shapes)]
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node(name, [inputs[-1].name], [f"{name}{n}"], **(pool if name == "AveragePool" else {}))
        for n, name in enumerate(operators)
    ]
    halved = (*shapes[-1][:2], *(side // 2 if isinstance(side, int) else side for side in shapes[-1][2:]))
    outputs = [
        helper.make_tensor_value_info(node.output[0], code, halved if node.op_type == "AveragePool" else shapes[-1])
        for node in nodes
    ]
    graph = helper.make_graph(nodes, "test", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
    return file


def describe(folder, name="model", **settings):
    """Write the YAML of a model that answers with the pixels of its first channel."""
    right = {
        "file": "model.onnx",
        "input": {"size": [32, 32], "layout": "nchw"},
        "output": {"channel": 0, "activation": "none"},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(right | settings))
    return file


def rectangle(height, width, top, left, bottom, right):
    """A white rectangle on a black image, and its mask."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255, mask


# --- geometry and pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", ["replicate", 0, 114])
@pytest.mark.parametrize("content", [[32, 32], [24, 12], [23, 11], [32, 9]])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_white_rectangle_comes_back_where_it_was(tmp_path, layout, content, border):
    onnx_model(tmp_path / "model.onnx", [(1, 3, 32, 32) if layout == "nchw" else (1, 32, 32, 3)])
    file = describe(tmp_path, input={"size": [32, 32], "content": content, "border": border, "layout": layout})
    image, mask = rectangle(*content, 2, 0, 9, 5)
    (found,) = open_model_file(file).probabilities([image])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, mask)


def test_a_map_of_half_the_resolution_comes_back_in_place(tmp_path):
    onnx_model(tmp_path / "model.onnx", operators=["AveragePool"])
    file = describe(tmp_path, input={"size": [32, 32], "content": [24, 12], "layout": "nchw"})
    image, mask = rectangle(24, 12, 6, 2, 18, 8)
    (found,) = open_model_file(file).probabilities([image])
    np.testing.assert_array_equal(found > 0.5, mask)


def test_crops_of_any_sizes_come_back_at_their_own(tmp_path):
    onnx_model(tmp_path / "model.onnx")
    segmenter = open_model_file(describe(tmp_path, input={"size": [32, 32], "content": [32, 16], "layout": "nchw"}))
    image, mask = rectangle(288, 144, 63, 36, 216, 90)
    big, small, mirrored = segmenter.probabilities([image, image[:9, 30:42], image[:, ::-1]])
    assert (big.shape, small.shape) == ((288, 144), (9, 12))
    np.testing.assert_array_equal(big[140] > 0.5, mask[140])  # its corners become round at 32 × 16 pixels
    np.testing.assert_array_equal(big[:, 60] > 0.5, mask[:, 60])
    np.testing.assert_array_equal(mirrored, big[:, ::-1])


def test_the_border_is_the_edge_of_the_crop_or_a_grey_level():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    edge = Input([12, 10], "nhwc", content=[8, 8], scale=1).values_of(image)
    np.testing.assert_array_equal(edge[0], np.pad(image, ((2, 2), (1, 1), (0, 0)), "edge"))
    grey = Input([12, 10], "nchw", content=[8, 8], border=114, scale=1).values_of(image)
    np.testing.assert_array_equal(grey[0, 1], np.pad(image[..., 1], ((2, 2), (1, 1)), constant_values=114))


@pytest.mark.parametrize(("colour", "channels"), [("rgb", [200, 100, 50]), ("bgr", [50, 100, 200]), ("grey", [124])])
def test_the_order_of_channels(colour, channels):
    image = np.full((16, 8, 3), [200, 100, 50], np.uint8)
    values = Input([16, 8], "nchw", colour=colour, scale=1).values_of(image)
    assert values[0, :, 3, 3].tolist() == channels  # grey by ITU-R 601: .299 R + .587 G + .114 B


def test_pixels_are_scaled_then_shifted_then_divided():
    image = np.full((16, 8, 3), [200, 100, 50], np.uint8)
    values = Input([16, 8], "nhwc", scale=0.01, mean=[1, 2, 3], std=[0.5, 1, 2]).values_of(image)
    np.testing.assert_allclose(values[0, 0, 0], [2, -1, -1.25], rtol=1e-6)
    assert values.dtype == np.float32


@pytest.mark.parametrize(("kind", "shape"), [("FLOAT16", (1, 3, 32, 32)), ("FLOAT", ("batch", 3, "height", None))])
def test_half_precision_and_graphs_of_any_size(tmp_path, kind, shape):
    onnx_model(tmp_path / "model.onnx", [shape], kind=kind)
    image, mask = rectangle(32, 32, 3, 4, 20, 30)
    np.testing.assert_array_equal(open_model_file(describe(tmp_path)).probabilities([image])[0], mask)


# --- what becomes of the answer --------------------------------------------------------------------------------------


def test_activations_by_hand():
    logits = np.array([[[0.0, -950.0], [950.0, np.log(3)]]], np.float32)  # (1, 2, 2)
    with np.errstate(over="raise", invalid="raise"):
        sigmoid = Output("sigmoid").probability(logits, "nchw")
        softmax = Output("softmax", channel=1).probability(np.stack([0 * logits, logits], 1), "nchw")
        none = Output("none").probability(logits, "nhwc")
    np.testing.assert_allclose(sigmoid, [[0.5, 0], [1, 0.75]], atol=1e-6)
    np.testing.assert_allclose(softmax, sigmoid, atol=1e-6)  # of two logits, one of them 0, it is the same
    assert none.tolist() == [[0, 0], [1, 1]]


def test_softmax_of_one_channel_says_nothing():
    with pytest.raises(CsviError, match=r"one channel, of which softmax makes 1: set output\.activation to sigmoid"):
        Output("softmax").probability(np.zeros((1, 1, 5, 3), np.float32), "nchw")


def test_the_channel_of_the_person():
    answer = np.random.default_rng(0).random((1, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(Output("none", channel=2).probability(answer, "nhwc"), answer[0, :, :, 2])
    np.testing.assert_array_equal(Output("none", channel=2).probability(answer, "nchw"), answer[0, 2])


@pytest.mark.parametrize(
    ("output", "number"), [({"name": "b"}, 1), ({"shape": [1, 8, 8, 1]}, 2), ({"name": "a", "shape": [1, 195]}, 0)]
)
def test_an_output_is_found_by_name_or_shape(output, number):
    outputs = [Port("a", (1, 195), "float32"), Port("b", (1, 195), "float32"), Port("c", (None, 8, 8, 1), "float32")]
    assert Output("none", **output).which(outputs) == number


def test_several_are_averaged(tmp_path):
    onnx_model(tmp_path / "model.onnx")
    red = describe(tmp_path, "red", sureness=0.8)
    blue = describe(tmp_path, "blue", sureness=0.6, output={"channel": 2, "activation": "none"})
    segmenter = find_segmenter(f"{red}, {blue}")
    assert isinstance(segmenter, Several)
    assert (segmenter.name, segmenter.sureness) == ("red,blue", 0.8)
    (found,) = segmenter.probabilities([np.full((32, 32, 3), [255, 9, 51], np.uint8)])
    np.testing.assert_allclose(found, 0.6, atol=1e-6)


# --- TFLite ----------------------------------------------------------------------------------------------------------


def tflite_model(file, shape, signature):
    """Write a model of one operator, the logistic function."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    tensors = []
    for name in (b"image", b"mask"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.shapeSignature, tensor.buffer = name, shape, signature, 0
        tensors.append(tensor)
    code, operator, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LOGISTIC
    operator.inputs, operator.outputs = [0], [1]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())


@pytest.mark.parametrize(("shape", "signature"), [([1, 32, 16, 1], None), ([1, 1, 1, 1], [-1, -1, -1, 1])])
def test_a_tflite_model_of_fixed_and_of_any_size(tmp_path, shape, signature):
    tflite_model(tmp_path / "model.tflite", shape, signature)
    file = describe(
        tmp_path,
        file="model.tflite",
        input={"size": [32, 16], "content": [32, 12], "layout": "nhwc", "colour": "grey", "mean": 0.5, "std": 0.01},
        output={"activation": "none"},
    )
    segmenter = open_model_file(file)
    for box in ((4, 2, 20, 9), (0, 0, 32, 5)):
        image, mask = rectangle(32, 12, *box)
        np.testing.assert_allclose(segmenter.probabilities([image])[0], mask, atol=1e-6)


# --- descriptions that are wrong -------------------------------------------------------------------------------------

INPUT = {"size": [32, 32], "layout": "nchw"}
OUTPUT = {"activation": "none"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "onnx"}, r"unknown name runtime: choose from file, input, output"),
        ({"input": INPUT | {"color": "rgb"}}, r"unknown name input\.color: choose from size, layout, content"),
        ({"input": {"size": [32, 32]}}, r"input\.layout is missing"),
        ({"output": {}}, r"output\.activation is missing"),
        ({"input": [32, 32]}, r"input is \[32, 32\]: it must hold names and values"),
        ({"output": None}, r"output is None: it must hold names and values"),
        ({"file": 3}, r"file is 3: it must be text"),
        ({"licence": ["MIT"]}, r"licence is \['MIT'\]: it must be text"),
        ({"sureness": 90}, r"sureness is 90: it must be a number from 0 to 1"),
        ({"input": INPUT | {"size": 256}}, r"input\.size is 256: it must be height and width from 8 to 4096"),
        ({"input": INPUT | {"size": [256, 1e9]}}, r"input\.size is \[256, 1000000000\.0\]"),
        ({"input": INPUT | {"content": [32, 33]}}, r"input\.content is \[32, 33\]: it must be no larger"),
        ({"input": INPUT | {"border": "black"}}, r"input\.border is 'black': it must be replicate, or a grey level"),
        ({"input": INPUT | {"border": 256}}, r"input\.border is 256"),
        ({"input": INPUT | {"layout": "hwc"}}, r"input\.layout is 'hwc': it must be nchw or nhwc"),
        ({"input": INPUT | {"colour": ["rgb"]}}, r"input\.colour is \['rgb'\]: it must be rgb or bgr or grey"),
        ({"input": INPUT | {"scale": "1/255"}}, r"input\.scale is '1/255': it must be a number"),
        ({"input": INPUT | {"mean": [0.5, 0.5]}}, r"input\.mean is \[0.5, 0.5\]: it must be .* a list of 3"),
        ({"input": INPUT | {"mean": float("nan")}}, r"input\.mean is nan"),
        ({"input": INPUT | {"std": [1, 0, 1]}}, r"input\.std is \[1, 0, 1\]: it must be something else than 0"),
        ({"input": INPUT | {"colour": "grey", "std": [1, 1, 1]}}, r"input\.std .* a list of 1"),
        ({"output": {"activation": "tanh"}}, r"output\.activation is 'tanh': it must be sigmoid or softmax or none"),
        ({"output": OUTPUT | {"channel": -1}}, r"output\.channel is -1: it must be a whole number from 0"),
        ({"output": OUTPUT | {"channel": True}}, r"output\.channel is True"),
        ({"output": OUTPUT | {"shape": "1x32"}}, r"output\.shape is '1x32': it must be a list of sizes"),
        ({"output": OUTPUT | {"name": 3}}, r"output\.name is 3: it must be a name"),
    ],
)
def test_what_is_wrong_in_a_description_is_one_sentence(tmp_path, settings, message):
    file = describe(tmp_path, **settings)
    with pytest.raises(CsviError, match=message) as caught:
        read_description(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a", "a: &x 1\nb: *x", "file: !!python/name:os.system", "\t"])
def test_what_is_no_description_is_refused(tmp_path, text):
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(CsviError, match=r"model\.yaml"):
        read_description(tmp_path / "model.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["size", "layout", "content", "border", "colour", "mean", "std"]), VALUES))
@settings(max_examples=100, deadline=None)
def test_values_at_random_are_taken_or_refused(values):
    try:
        given_values = INPUT | values
        Input(**given_values).values_of(np.zeros((16, 8, 3), np.uint8))
    except CsviError as error:
        assert re.match(r"input\.\w+ is ", str(error))  # noqa: PT017 (either may happen)


# --- model files that are wrong --------------------------------------------------------------------------------------


def test_a_missing_model_says_where_to_get_it_and_how_to_name_it(tmp_path):
    with pytest.raises(CsviError) as caught:
        find_segmenter("blazepose_lite")
    message = str(caught.value)
    assert "pose_landmark_lite.tflite is missing: get it from npm pack @mediapipe/pose@0.5.1675469404" in message
    assert "(licence: Apache-2.0) and name it, --segmenter blazepose_lite=FILE" in message
    file = describe(tmp_path)
    with pytest.raises(CsviError, match=rf"{tmp_path}/model.onnx is missing: get it and .* --segmenter {file}=FILE"):
        find_segmenter(str(file))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pt", r"model\.pt is of no kind that is run: it must end in \.onnx or \.tflite"),
        ("model.onnx", r"model\.onnx is damaged or no \.onnx model: "),
        ("model.tflite", r"model\.tflite is damaged or no \.tflite model: "),
    ],
)
def test_files_that_are_no_model(tmp_path, name, message):
    if name != "model.pt":
        pytest.importorskip({"model.onnx": "onnxruntime", "model.tflite": "ai_edge_litert"}[name])
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(CsviError, match=message) as caught:
        open_model_file(describe(tmp_path, file=name))
    assert "\n" not in str(caught.value)


def test_a_folder_or_a_name_of_no_file_in_place_of_a_model(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    for name in ("model.onnx", "a\0b.onnx", "a" * 300):
        with pytest.raises(CsviError, match="cannot read the model file"):
            open_model_file(describe(tmp_path, file=name))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.onnx", "onnxruntime", "onnx"), ("a.tflite", "ai_edge_litert.interpreter", "tflite")],
)
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).touch()
    with pytest.raises(CsviError, match=rf"{name} needs {module.partition('.')[0]}: pip install 'csvi\[{extra}\]'"):
        open_model_file(describe(tmp_path, file=name))


@pytest.mark.parametrize(
    "model",
    [
        {"shapes": [(1, 3, 64, 32)]},
        {"shapes": [(1, 32, 32, 3)]},
        {"shapes": [(1, 3, 32, 32)] * 2},
        {"shapes": [(1, 3, 32, 32)], "kind": "UINT8"},
    ],
)
def test_a_model_that_takes_something_else_than_described(tmp_path, model):
    onnx_model(tmp_path / "model.onnx", **model)
    with pytest.raises(CsviError, match=r"model: the model takes image0 \(1 × .* makes 1 × 3 × 32 × 32 of float32"):
        open_model_file(describe(tmp_path))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({}, r"several outputs of the model may be meant.* one of these: Identity0 \(1 × 3 × 32 × 32\), Identity1"),
        ({"name": "mask"}, "no output of the model may be meant: give output.name or output.shape"),
        ({"shape": [1, 1, 32, 32]}, "no output"),
        ({"name": "Identity1"}, "the output has 3 channels: set output.channel"),
        ({"name": "Identity1", "channel": 3}, "the output has 3 channels"),
        ({"name": "Sqrt2", "channel": 0}, "the output holds values that are no numbers"),
    ],
)
def test_an_output_that_is_not_as_described(tmp_path, output, message):
    onnx_model(tmp_path / "model.onnx", operators=["Identity", "Identity", "Sqrt"])
    file = describe(tmp_path, input=INPUT | {"mean": 1}, output=OUTPUT | output)
    with pytest.raises(CsviError, match=rf"^model: {message}"):
        open_model_file(file).probabilities([np.zeros((32, 32, 3), np.uint8)])


def test_an_output_that_is_no_map():
    with pytest.raises(CsviError, match=r"the output has the shape \(1, 195\): it must be that of an image, nhwc"):
        Output("none").probability(np.zeros((1, 195), np.float32), "nhwc")


def test_whatever_a_runtime_raises_is_one_sentence():
    class Broken:
        inputs, outputs = [Port("image", (1, 3, 32, 32), "float32")], [Port("mask", (1, 1, 32, 32), "float32")]

        def run(self, values, output):
            raise RuntimeError("first\nsecond")

    segmenter = ModelFile("mine", Description("", Input([32, 32], "nchw"), Output("none")), Broken())
    with pytest.raises(CsviError, match=r"^mine: the model cannot be run: first second$"):
        segmenter.probabilities([np.zeros((32, 32, 3), np.uint8)])


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_description_that_is_shipped_reads_and_says_where_its_model_is_from():
    assert {"blazepose_lite", "blazepose_full", "blazepose_heavy", "selfie_segmentation"} < set(described())
    for name, file in described().items():
        description = read_description(file)
        assert name == "example_onnx" or (description.source and description.licence and description.citation), name


def test_a_model_is_named_behind_the_name_of_its_description(tmp_path):
    onnx_model(tmp_path / "mine=1.onnx", [(1, 3, 256, 128)])
    described_by = describe(tmp_path, input={"size": [256, 128], "layout": "nchw"})
    segmenter = find_segmenter(f"{described_by}={tmp_path / 'mine=1.onnx'}")
    assert segmenter.name.startswith("model=mine=1.onnx (")
    onnx_model(tmp_path / "mine=1.onnx", [(1, 3, 256, 128)], operators=["Sqrt"])
    other = find_segmenter(f"{described_by}={tmp_path / 'mine=1.onnx'}")
    assert other.name != segmenter.name  # masks by another file are not taken for its


def test_a_worker_in_another_folder_finds_the_same_files(tmp_path, monkeypatch):
    onnx_model(tmp_path / "model.onnx")
    describe(tmp_path)
    monkeypatch.chdir(tmp_path)
    segmenter = find_segmenter("model.yaml=model.onnx, model.yaml")
    assert segmenter.spec == f"{tmp_path}/model.yaml={tmp_path}/model.onnx,{tmp_path}/model.yaml"
    monkeypatch.chdir("/")
    assert find_segmenter(segmenter.spec).name == segmenter.name


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of somebody's, with segmenters; `embedded` is the first of them."""
    (tmp_path / "somebodys.py").write_text(
        "import numpy as np\n"
        "from csvi.masks.segmenter import Segmenter\n\n\n"
        "class Constant(Segmenter):\n"
        "    name = 'constant'\n\n"
        "    def __init__(self, file=None):\n"
        "        self.file = file\n\n"
        "    def probabilities(self, images):\n"
        "        return [np.full(image.shape[:2], 0.5, np.float32) for image in images]\n\n\n"
        "class Nameless(Segmenter):\n"
        "    probabilities = None\n\n\n"
        "class Broken(Segmenter):\n"
        "    def __init__(self):\n"
        "        raise RuntimeError('first\\nsecond')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules["csvi.masks.find"].CLASSES, "embedded", "somebodys:Constant")
    yield
    sys.modules.pop("somebodys", None)


@pytest.mark.usefixtures("module")
def test_classes_are_built_with_a_file_if_one_is_named(tmp_path):
    assert find_segmenter("embedded").file is None
    assert find_segmenter("somebodys:Constant").name == "constant"
    of_file = find_segmenter(f"somebodys:Constant={tmp_path}/w.bin")
    assert (of_file.name, of_file.file) == ("constant=w.bin", tmp_path / "w.bin")
    assert find_segmenter("embedded=~/w.safetensors").file == Path.home() / "w.safetensors"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown segmenter '': choose one of embedded, blazepose_full, .*, a .yaml that describes"),
        ("embedded,", "unknown segmenter ''"),
        ("blazepose", "unknown segmenter 'blazepose': choose one of"),
        ("../sysu", "unknown segmenter"),
        ("nothing.yaml", "no such file: nothing.yaml"),
        ("nobodys:Segmenter", "cannot import the segmenter nobodys:Segmenter"),
        ("pathlib:Path", "pathlib:Path is no segmenter: it must name a class that derives from csvi.masks.segmenter"),
        ("somebodys:Broken", r"cannot build the segmenter somebodys:Broken \(RuntimeError: first second\)"),
        ("somebodys:Nameless", "the segmenter somebodys:Nameless has no name: give its class a `name`"),
        ("somebodys:Broken=file", r"cannot build the segmenter somebodys:Broken=file \(TypeError: "),
    ],
)
def test_names_of_no_segmenter(name, message):
    with pytest.raises(CsviError, match=message) as caught:
        find_segmenter(name)
    assert "\n" not in str(caught.value)


# --- torchvision -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """DeepLabV3 of random weights, without the auxiliary classifier."""
    torch.manual_seed(0)
    net = torchvision.models.get_model("deeplabv3_mobilenet_v3_large", weights=None, weights_backbone=None)
    file = tmp_path_factory.mktemp("weights") / "deeplab.pth"
    torch.save(net.state_dict(), file)
    return net.eval(), file


@torch.inference_mode()
def test_deeplab_gives_the_softmax_of_the_person(weights):
    net, file = weights
    image = np.random.default_rng(0).integers(0, 256, (512, 256, 3), dtype=np.uint8)
    segmenter = find_segmenter(f"deeplabv3_mobilenet_v3_large={file}")
    assert segmenter.name == f"deeplabv3_mobilenet_v3_large=deeplab.pth ({digest_of(file)[:8]})"
    (found,) = segmenter.probabilities([image])
    transform = torchvision.models.segmentation.DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT.transforms(
        resize_size=None
    )
    logits = net(transform(torch.from_numpy(image).permute(2, 0, 1))[None])["out"]
    np.testing.assert_allclose(found, logits.softmax(1)[0, 15], atol=1e-5)  # 15 is the person in PASCAL VOC


def test_weights_of_another_network_are_refused(weights):
    with pytest.raises(CsviError, match=r"deeplab\.pth holds no weights of torchvision's deeplabv3_resnet50"):
        find_segmenter(f"deeplabv3_resnet50={weights[1]}")


@pytest.mark.parametrize("downloaded", [True, False])
def test_code_in_a_file_of_weights_does_not_run(trap, tmp_path, monkeypatch, downloaded):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights(TORCHVISION[0]).DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({"backbone.weight": trap}, file)
    with pytest.raises(CsviError, match=r"(are|is) damaged"):
        find_segmenter(TORCHVISION[0] if downloaded else f"{TORCHVISION[0]}={file}")


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_that_cannot_be_downloaded(monkeypatch, name):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(CsviError, match=rf"could not download .*: get https://.*\.pth .* --segmenter {name}=FILE"):
        find_segmenter(name)


class Found(nn.Module):
    """A detector that has found four things: the masks hold their number, in tenths."""

    def __init__(self, labels, scores):
        super().__init__()
        self.labels, self.scores = labels, scores

    def forward(self, images):
        assert [image.shape for image in images] == [(3, 40, 20)]
        boxes = torch.tensor([[0, 0, 9, 40], [2, 0, 20, 40], [1, 1, 19, 39], [0, 0, 20, 40]], dtype=torch.float32)
        masks = torch.arange(4)[:, None, None, None].expand(4, 1, 40, 20) / 10
        return [{"boxes": boxes, "masks": masks, "labels": torch.tensor(self.labels), "scores": self.scores}]


@pytest.mark.parametrize(
    ("labels", "mask"), [([1, 1, 1, 2], 0.2), ([1, 1, 2, 2], 0.1), ([1, 2, 2, 2], 0), ([2, 2, 2, 2], 0)]
)
def test_of_all_people_the_surest_in_the_middle_is_taken(labels, mask):
    scores = torch.tensor([0.99, 0.5, 0.7, 0.9])  # the first stands aside, the last is a bicycle
    found = MaskOfPerson(Found(labels, scores), person=1)(torch.zeros(1, 3, 40, 20))
    assert found.shape == (1, 1, 40, 20)
    assert torch.all(found == mask)


# --- docs/masks.md ---------------------------------------------------------------------------------------------------


def section(heading):
    return PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_worked_example_of_a_segmenter_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "warm.py").write_text(re.search(r"```python\n(.*?)```", section("Segmenters of others"), re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    segmenter = find_segmenter("warm:Warm")
    assert isinstance(segmenter, Segmenter)
    image, mask = rectangle(48, 24, 5, 4, 40, 20)
    (found,) = segmenter.probabilities([image])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found > 0.5, mask)


def test_the_page_says_of_each_model_what_its_description_says():
    text = section("Segmenters of others")
    for name, file in described().items():
        description = read_description(file)
        assert f"`{name}`" in text
        for fact in (description.source, description.licence):
            assert fact in text, (name, fact)
