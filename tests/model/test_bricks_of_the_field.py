"""The bricks of the field's methods against what the public code computes, and against their formulas written out.

goldens_of_the_field.json holds inputs, parameters and outputs of the public modules, and numbers of parameters.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from csvi.errors import CsviError
from csvi.model.attention import GraphAttention, GraphAttentionLayer, NonLocal, PartAttention
from csvi.model.enhancement import DiverseEmbedding, ModalityAlleviation, MultiFeatureAggregation
from csvi.model.folding import folded
from csvi.model.neck import BNNeck, Classifier
from csvi.model.pooling import GeM, PatternMaps, average_strips

GOLDENS = json.loads(Path(__file__).with_name("goldens_of_the_field.json").read_text())
RESNET50 = 23_508_032  # parameters without the classifier
SECOND_STEM = 9_536


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, expected):
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=1e-8)


def filled(module, parameters, **names):
    """The module in evaluation mode, with the public code's parameters; `names` says what ours are called."""
    module = module.double().eval()
    ours = dict(module.named_parameters())
    assert len(ours) == sum(not name.startswith("bottleneck.bias") for name in parameters)
    for name, values in parameters.items():
        for public, own in names.items():
            name = name.replace(public.replace("_", "."), own)
        if name in ours:
            ours[name].data = tensor(values).view_as(ours[name])
        else:
            assert name == "norm.bias"  # frozen, and so not a parameter here
    return module


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


def random(*shape):
    return torch.randn(shape, dtype=torch.float64)


def perturbed(module):
    """The module in evaluation mode with no parameter at 0 or 1."""
    torch.manual_seed(0)
    for parameter in module.double().eval().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


# Pooling


def test_gem_pools_as_agw():
    golden = GOLDENS["AGW"]["gem_p3"]
    close(GeM(3)(tensor(golden["input"])), golden["pooled"])


def test_gem_pools_strips_as_hctri():
    golden = GOLDENS["HcTri"]["gem_p10_3_strips"]
    close(GeM(10).strips(tensor(golden["input"]), 3).transpose(0, 1), golden["strips"])


@pytest.mark.parametrize("p", [3, 10])
def test_gem_has_finite_values_and_gradients_at_zero_and_in_bfloat16(p):
    features = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)
    features[0] = 3
    pooled = GeM(p)(features.requires_grad_())
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[0], torch.full((3,), 3.0))
    pooled.sum().backward()
    assert features.grad.isfinite().all()


def test_gem_keeps_its_epsilon_in_onnx():
    """Whose exporter drops what is added if it is below 1e-8: a dead channel would be 0 and not .063."""
    runtime = pytest.importorskip("onnxruntime")
    features = torch.zeros(1, 2, 3, 2)
    program = torch.onnx.export(GeM(10).eval(), (features,), dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (pooled,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    torch.testing.assert_close(torch.from_numpy(pooled), GeM(10)(features))


@pytest.mark.parametrize("height", [18, 20])
def test_strips_are_mtls(height):
    golden = GOLDENS["MTL"][f"strips_6_of_height_{height}"]
    close(average_strips(tensor(golden["input"]), 6).mT, golden["output"])


def test_fewer_rows_than_strips_are_refused():
    with pytest.raises(CsviError, match="4 rows has no 6 strips"):
        average_strips(torch.zeros(1, 2, 4, 4), 6)


def test_pattern_maps_and_neck_are_mpanets_head():
    golden = GOLDENS["MPANet"]["head"]
    pool, neck = PatternMaps(4, 2).double(), BNNeck(12, weight_std=0).double().eval()
    weights = {name: tensor(values) for name, values in golden["parameters"].items()}
    pool.score.load_state_dict({name: weights[f"spatial_attention.{name}"] for name in ("weight", "bias")})
    neck.weight.data = weights["bn_neck.weight"]
    features, maps = pool(tensor(golden["input"]))
    close(neck(features) + weights["bn_neck.bias"], golden["output"])
    assert maps.shape == (8, 2, 3, 2)


# Neck


def test_a_bn_neck_is_batch_norm_with_a_bias_of_zero_that_is_no_parameter():
    torch.manual_seed(0)
    neck, plain = BNNeck(2000), nn.BatchNorm1d(2000)
    assert [name for name, _ in neck.named_parameters()] == ["weight"]
    assert neck.weight.mean().item() == pytest.approx(1, abs=1e-3)
    assert neck.weight.std().item() == pytest.approx(0.01, rel=0.05)
    plain.weight.data = neck.weight.data.clone()
    features = torch.randn(4, 2000)
    torch.testing.assert_close(neck(features), plain(features))
    torch.testing.assert_close(neck.running_var, plain.running_var)
    assert (BNNeck(5, weight_std=0).weight == 1).all()
    assert nn.SyncBatchNorm.convert_sync_batchnorm(neck).bias is None


def test_a_classifier_starts_small_and_has_no_bias():
    classifier = Classifier(200, 50)
    assert classifier.bias is None
    assert classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)


# Attention


def test_the_non_local_block_is_agws():
    golden = GOLDENS["AGW"]["non_local"]
    block = filled(NonLocal(4), golden["parameters"], g_0_="g.", W_="out.")
    close(block(tensor(golden["input"])), golden["output"])


def test_a_non_local_block_with_several_inner_channels_is_the_sum_over_positions_it_says():
    block, features = perturbed(NonLocal(4, inner=3)), random(2, 4, 3, 2)
    theta, phi, g = (layer(features).flatten(2) for layer in (block.theta, block.phi, block.g))
    affinity = torch.einsum("bip,biq->bpq", theta, phi) / 6
    y = torch.einsum("bpq,biq->bip", affinity, g).view(2, 3, 3, 2)
    torch.testing.assert_close(block(features), features + block.out(y))


def test_part_attention_is_ddags():
    golden = GOLDENS["DDAG"]["iwpa_eval"]
    parameters = {name: v for name, v in golden["parameters"].items() if name not in golden["unused_parameters"]}
    attend = filled(PartAttention(4), parameters, fc1_0_="u.", fc2_="v.", fc3_="z.", bottleneck_="norm.")
    found = attend(tensor(golden["input"]), tensor(golden["feat_after_bottleneck"]))
    close(found + tensor(parameters["bottleneck.bias"]), golden["output"])


def graph_layer():
    golden = GOLDENS["DDAG"]["graph_attention"]
    layer = GraphAttentionLayer(4, 3).double().eval()
    layer.project.weight.data = tensor(golden["parameters"]["W"]).T
    layer.attention.data = tensor(golden["parameters"]["a"]).T
    return layer, tensor(golden["input"]), torch.tensor(golden["labels"]), golden


def test_graph_attention_is_ddags():
    layer, features, identity, golden = graph_layer()
    found = layer(features, identity)
    close(found, golden["output_no_elu"])
    close(nn.functional.elu(found), golden["output_concat_elu"])


def test_graph_attention_goes_by_label_and_not_by_position():
    layer, features, identity, _ = graph_layer()
    order = torch.tensor([3, 0, 5, 2, 4, 1])
    torch.testing.assert_close(layer(features[order], 7 - identity[order]), layer(features, identity)[order])


def test_graph_attention_of_an_image_alone_in_its_identity_is_its_own_projection():
    graph = perturbed(GraphAttention(8, 5, heads=2))
    features, identity = random(3, 8), torch.tensor([4, 1, 4])
    with torch.no_grad():
        scores, before = graph(features, identity), graph(features[1:2], identity[1:2])
        alone = torch.cat([nn.functional.elu(head.project(features[1])) for head in graph.heads])
    torch.testing.assert_close(scores[1:2], before)
    torch.testing.assert_close(scores[1], nn.functional.elu(graph.classify.project(alone)))
    assert scores.shape == (3, 5)


# Enhancement


def test_modality_alleviation_is_mpanets():
    golden = GOLDENS["MPANet"]["mam_16_channels"]
    names = {"channel_attention_0_": "gate.1.", "channel_attention_2_": "gate.3."}
    parameters = {name.replace("channel_attention", "channel.attention"): v for name, v in golden["parameters"].items()}
    close(filled(ModalityAlleviation(16), parameters, **names)(tensor(golden["input"])), golden["output"])


def test_aggregation_is_deens():
    golden = GOLDENS["DEEN"]["mfa_flag_0_eval"]
    names = {"CNL_": "channels.", "PNL_": "positions.", "W_": "out."}
    aggregate = filled(MultiFeatureAggregation(6, 4), golden["parameters"], **names)
    high, low = tensor(golden["high"]), tensor(golden["low"])
    close(aggregate.channels(high, low), golden["cnl_output"])
    close(aggregate(high, low), golden["output"])


def test_aggregation_over_a_stage_of_stride_2_is_what_the_specification_says():
    """With the matrix of positions by positions, and tensors re-read row-major."""
    aggregate, high, low = perturbed(MultiFeatureAggregation(6, 4, stride=2)), random(2, 6, 3, 2), random(2, 4, 6, 4)
    c, p = aggregate.channels, aggregate.positions
    affinity = torch.einsum("bip,bjp->bij", c.theta(high).flatten(2), c.phi(low).flatten(2)) / 4
    y = torch.einsum("bij,bjp->bip", affinity, c.g(low).flatten(2))
    between = high + c.out(y.view(2, 4, 6, 4))
    theta, phi, g = p.theta(between), p.phi(low), p.g(low)
    theta, phi, g = theta.reshape(2, 4, 3), phi.reshape(2, 4, 12), g.reshape(2, 4, 12)
    affinity = torch.einsum("bip,biq->bpq", theta, phi) / 12
    y = torch.einsum("bpq,biq->bip", affinity, g)
    torch.testing.assert_close(aggregate(high, low), between + p.out(y.reshape(2, 2, 3, 2)))


def test_aggregation_adds_a_position_of_zeros_to_an_odd_number_of_them():
    """Written out with the matrix of positions by positions: 3 x 3 of the output and 5 x 5 of the input."""
    aggregate, high, low = perturbed(MultiFeatureAggregation(6, 4, stride=2)), random(2, 6, 3, 3), random(2, 4, 5, 5)
    between, p = aggregate.channels(high, low), aggregate.positions
    theta, phi, g = p.theta(between).flatten(2), p.phi(low).flatten(2), p.g(low).flatten(2)
    theta, phi, g = (torch.cat([x, torch.zeros(2, 2, 1)], 2).reshape(2, 4, -1) for x in (theta, phi, g))
    affinity = torch.einsum("bip,biq->bpq", theta, phi) / 13
    y = torch.einsum("bpq,biq->bip", affinity, g).reshape(2, 2, 10)[..., :9]
    torch.testing.assert_close(aggregate(high, low), between + p.out(y.reshape(2, 2, 3, 3)))


def test_diverse_embeddings_are_deens():
    golden = GOLDENS["DEEN"]["dee_8_channels_eval"]
    names = {f"FC{b}{d}_": f"branches.{b - 1}.dilated.{d - 1}." for b in (1, 2) for d in (1, 2, 3)}
    names |= {f"FC{b}_": f"branches.{b - 1}.expand." for b in (1, 2)}
    close(filled(DiverseEmbedding(8), golden["parameters"], **names)(tensor(golden["input"])), golden["output"])


@pytest.mark.parametrize("block", [NonLocal(4), MultiFeatureAggregation(4, 6)], ids=["non-local", "aggregation"])
def test_residual_blocks_are_the_identity_at_first(block):
    features = torch.randn(2, 4, 4, 2)
    more = () if isinstance(block, NonLocal) else (torch.randn(2, 6, 4, 2),)
    assert torch.equal(block(features, *more), features)


# Sizes


def dropped(module, *inputs):
    """Probability and shape of all that a module drops from in training, in its order."""
    seen = []
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda part, given, _: seen.append((part.p, *given[0].shape)))
    module(*inputs)
    return seen


def test_graph_attention_drops_inputs_attention_weights_and_what_its_heads_give():
    found = dropped(GraphAttention(8, 5, heads=2, dropout=0.3), torch.randn(6, 8), torch.arange(6) // 2)
    assert found == [(0.3, 6, 8), (0.3, 6, 6), (0.3, 6, 6), (0.3, 6, 8), (0.3, 6, 6)]


def test_diverse_embeddings_are_dropped_from_together_with_the_image():
    assert dropped(DiverseEmbedding(8, dropout=0.3), torch.randn(2, 8, 4, 3)) == [(0.3, 6, 8, 4, 3)]


def test_initial_weights_are_those_of_the_public_codes():
    torch.manual_seed(0)
    layer = GraphAttentionLayer(256, 64)  # Xavier with gain sqrt(2)
    assert layer.project.weight.abs().max().item() == pytest.approx((12 / (256 + 64)) ** 0.5, rel=0.01)
    assert layer.attention.abs().max().item() == pytest.approx((12 / (128 + 1)) ** 0.5, rel=0.05)
    assert PartAttention(8, 3).gate.tolist() == [0, 0, 0]
    gate = ModalityAlleviation(512).gate  # Kaiming, by the outputs
    assert gate[1].weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.03)
    assert gate[3].weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.03)
    branch = DiverseEmbedding(128).branches[0]  # Kaiming, by the inputs
    assert branch.dilated[0].weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.03)
    assert branch.expand.weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.03)
    assert PatternMaps(8).score.bias.tolist() == [0] * 6


def test_numbers_of_parameters_are_the_public_codes():
    """Public code counts the bias of a neck, here C more for each."""
    expected = GOLDENS["counts"]
    heads = RESNET50 + SECOND_STEM + size(BNNeck(2048)) + 2048 + 2048 * 395
    assert heads == expected["AGW_base"]
    assert heads + 2 * size(NonLocal(512)) + 3 * size(NonLocal(1024)) == expected["AGW"]
    graph, attend = on_meta(lambda: GraphAttention(2048, 395)), on_meta(lambda: PartAttention(2048))
    assert size(graph) == expected["DDAG_graph"]
    assert heads + size(attend) + 2048 + size(graph) == expected["DDAG"]
    mpanet = expected["MPANet"]
    assert RESNET50 + size(ModalityAlleviation(1024)) + size(ModalityAlleviation(2048)) == mpanet["backbone"]
    assert size(PatternMaps(2048)) == mpanet["spatial_attention"]
    assert size(BNNeck(7 * 2048)) * 2 == mpanet["bn_neck"]
    for deen, expand in ((expected["DEEN"], 1024), (expected["DEEN_regdb"], 512)):
        assert size(on_meta(lambda expand=expand: DiverseEmbedding(expand))) == deen["DEE"]
        for number, pair in enumerate([(256, 64), (512, 256), (1024, 512)][: len(deen) - 1], 1):
            assert size(on_meta(lambda pair=pair: MultiFeatureAggregation(*pair))) == deen[f"MFA{number}"]


# What all have in common


class Everything(nn.Module):
    """All bricks in a row, between stages of the widths given."""

    def __init__(self, low=16, high=32):
        super().__init__()
        self.stage = nn.Conv2d(low, high, 3, 2, padding=1)
        self.non_local, self.aggregate = NonLocal(low), MultiFeatureAggregation(high, low, 2)
        self.expand, self.alleviate, self.patterns = (
            DiverseEmbedding(high),
            ModalityAlleviation(high),
            PatternMaps(high),
        )
        self.neck, self.attend, self.gem, self.relate = (
            BNNeck(high),
            PartAttention(high),
            GeM(),
            GraphAttention(high, 5),
        )
        self.classify = Classifier(high, 5)

    def forward(self, features, identity=None):
        features = self.non_local(features)
        features = self.alleviate(self.expand(self.aggregate(self.stage(features), features))).relu()
        pooled = self.gem(features)
        attended = self.attend(features, self.neck(pooled))
        strips = self.gem.strips(features, 3).flatten(1)
        found = [attended, self.classify(attended), self.patterns(features)[0], strips]
        if identity is not None:
            found.append(self.relate(pooled, identity.repeat(3)))
        return torch.cat(found, 1)


def built(double=True):
    torch.manual_seed(0)
    net = Everything()
    return net.double() if double else net


@pytest.mark.parametrize(("low", "high"), [(24, 32), (32, 96), (64, 128)])
def test_bricks_fit_the_stages_of_small_backbones_and_every_parameter_learns(low, high):
    net = Everything(low, high)
    net(torch.rand(4, low, 12, 6), torch.tensor([0, 0, 3, 1])).sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_bricks_can_be_copied():
    net = built().eval()
    other = copy.deepcopy(net)
    features = random(2, 16, 12, 6)
    assert torch.equal(net(features), other(features))
    other.load_state_dict(built().state_dict())


def test_bricks_compute_the_same_in_channels_last():
    net, features = perturbed(built()), random(2, 16, 12, 6)
    last = net(features.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, net(features))


def test_bricks_compute_nearly_the_same_in_bfloat16():
    net, features = built(double=False).eval(), torch.rand(2, 16, 12, 6)
    identity = torch.tensor([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        narrow = net(features, identity)
    torch.testing.assert_close(narrow.float(), net(features, identity), rtol=0.05, atol=0.02)


def test_bricks_compute_the_same_when_batch_norms_are_folded():
    net, features = perturbed(built()), random(2, 16, 12, 6)
    torch.testing.assert_close(folded(net)(features), net(features))


@pytest.mark.slow
def test_bricks_are_exported_with_any_batch():
    net = perturbed(built())
    program = torch.export.export(net, (random(2, 16, 12, 6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    features = random(5, 16, 12, 6)
    torch.testing.assert_close(program.module()(features), net(features))
