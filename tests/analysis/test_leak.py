"""A head that can only read w, one that cannot, and the same images through the network itself."""

import io
import json
from dataclasses import asdict, replace

import pytest
import torch
from rich.console import Console

from csvi.analysis.leak import (
    IdentityImages,
    Shares,
    another_of_each,
    leak,
    leak_figure,
    leak_table,
    measure,
    paired_weights,
)
from csvi.errors import CsviError
from csvi.methods.coseg import CoSeg
from csvi.model.parts import PartHead

CLASSES = 4


def head_of(**settings):
    """A method whose extra head's scores are the channels that it sees."""
    method = CoSeg(
        CoSeg.Settings(backbone="resnet18", parts=1, part_dim=CLASSES, part_norm=False, widths=(4, 4), **settings),
        CLASSES, 48, 24,
    ).eval()  # fmt: skip
    method.head = PartHead(CLASSES, CLASSES, parts=1, dim=CLASSES, norm=False)
    for linear in (method.head.embed, method.head.classify):
        linear.weight.data = torch.eye(CLASSES)[None]
    return method


def images_of(strips, weights):
    """Three visible and two infrared images of each class n with channels strips[n] and weights[n]."""
    modality = torch.tensor([0, 0, 0, 1, 1])
    return [
        IdentityImages(
            n, modality, strips[n].expand(5, -1)[:, :, None, None], weights[n].expand(5, -1)[:, :, None, None]
        )
        for n in range(CLASSES)
    ]


ALL, NONE = Shares(1, 1, 1), Shares(0, 0, 0)
FLAT, TELLING = torch.ones(CLASSES, CLASSES), torch.eye(CLASSES)


def test_a_head_that_reads_the_weights_names_whose_they_are():
    found = measure("run", head_of(), images_of(strips=FLAT, weights=TELLING))
    assert (found.own, found.other, found.other_named) == (ALL, NONE, ALL)
    assert found.mean == found.without == Shares(1 / CLASSES, 1 / CLASSES, 1 / CLASSES)  # all scores are equal
    assert (found.identities, found.images, found.reads_weights) == (CLASSES, 5 * CLASSES, True)


def test_a_head_that_reads_the_image_names_the_image():
    found = measure("run", head_of(), images_of(strips=TELLING, weights=FLAT))
    assert found.own == found.other == found.mean == found.without == ALL
    assert found.other_named == NONE


def test_where_only_the_decoder_has_the_weights_the_head_reads_the_image():
    found = measure("run", head_of(weights_to="decoder"), images_of(strips=TELLING, weights=TELLING.flip(0)))
    assert found.own == found.other == found.mean == found.without == ALL
    assert not found.reads_weights


def test_shares_go_by_modality():
    images = images_of(strips=TELLING, weights=FLAT)
    like_the_next = TELLING.roll(-1, 0)
    images = [
        replace(one, strips=torch.cat([one.strips[:3], like_the_next[n].expand(2, -1)[:, :, None, None]]))
        for n, one in enumerate(images)
    ]
    assert measure("run", head_of(), images).own == Shares(3 / 5, 1, 0)


def test_paired_weights_go_by_number_and_modality():
    weights = torch.arange(5.0)[:, None, None, None]
    donor = IdentityImages(0, torch.tensor([0, 1, 0, 1, 0]), weights, weights)
    images = IdentityImages(1, torch.tensor([1, 1, 1, 0, 0]), weights, weights)
    assert paired_weights(images, donor).flatten().tolist() == [1, 3, 1, 0, 2]


def test_another_of_each_is_never_oneself():
    for number in (2, 3, 50):
        found = another_of_each(number, seed=3)
        assert sorted(found) == list(range(number))
        assert all(n != other for n, other in enumerate(found))
    assert another_of_each(50, seed=3) == found != another_of_each(50, seed=4)


def test_one_identity_has_no_other():
    with pytest.raises(CsviError, match="one identity"):
        measure("run", head_of(), images_of(TELLING, FLAT)[:1])


@pytest.mark.parametrize("source", ["own", "leave-one-out"])
def test_own_weights_are_those_of_the_network_on_all_images_of_an_identity(born, source):
    run = born(weights_from=source)
    right = []
    for identity in range(1, 9):
        batch = run.batch([record for record in run.benchmark.train if record.identity == identity])
        features = run.method.features(batch)
        weights = run.method.ccwg(features, batch.identity, batch.modality)
        _, scores = run.method.head(weights * features)
        right.append(scores.sum(1).argmax(1) == identity - 1)
    found = leak([run])[0]
    assert found.own.all == pytest.approx(float(torch.cat(right).double().mean()))
    assert (found.run, found.weights_from, found.images) == (run.name, source, 96)
    assert json.loads(json.dumps(asdict(found)))["own"]["all"] == found.own.all


def test_runs_without_such_a_head_are_refused(born):
    with pytest.raises(CsviError, match=r"was trained without the extra part head"):
        leak([born(head=False)])
    with pytest.raises(CsviError, match=r"has no co-segmentation"):
        leak([born("decode")])


def test_the_figure_and_the_table_hold_every_share():
    reads = measure("reads", head_of(), images_of(FLAT, TELLING))
    not_read = measure("weights_to_decoder", head_of(weights_to="decoder"), images_of(TELLING, TELLING))
    figure = leak_figure([reads, not_read])
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[100, 100], [25, 100], [25, 100], [0, 100], [100, 0]]
    assert [label.get_text() for label in axes.get_xticklabels()][1].endswith("(head reads F$_s$)")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(leak_table([reads, not_read]))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[-2:] for line in text.splitlines() if "another's" in line] == [
        ["0.0", "100.0"],
        ["100.0", "0.0"],
    ]
