"""Runs against each other, by numbers computed directly; and what cannot be compared."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

from csvi.analysis.tables import difference_cell, percent, print_comparison, print_evaluation, print_summary
from csvi.config import Config, DataConfig, MethodSettings, TrainConfig, shared_by_repetitions
from csvi.data import find_layout
from csvi.data.records import ImageRecord
from csvi.data.sysu import MODALITIES
from csvi.errors import CsviError
from csvi.evaluate import Refinement, evaluate_protocols
from csvi.evaluate.intervals import SAMPLES
from csvi.methods.baseline import Baseline
from csvi.methods.coseg import CoSeg
from csvi.runs.evaluation import Evaluation
from csvi.runs.statistics import Difference, compare_groups, difference_of_groups, differing_settings, summarize

PEOPLE = 25
RECORDS = [
    ImageRecord(f"cam{camera}/{identity:04d}/{n:04d}.jpg", identity, camera, modality)
    for camera, modality in MODALITIES.items()
    for identity in range(1, PEOPLE + 1)
    for n in range(1, 2 + (identity + camera) % 3)
]


def sysu_protocols(records, trials):
    return find_layout("sysu").protocols(records, "seeded", Path(), trials)


PROTOCOLS = sysu_protocols(RECORDS, trials=2)


def evaluation(noise, seed=0, records=RECORDS, protocols=PROTOCOLS, refinement=None, **changes):
    """Of embeddings so far from a point for each person."""
    random = torch.Generator().manual_seed(seed)
    identity = torch.tensor([record.identity for record in records])
    person = torch.randn(PEOPLE + 1, 16, generator=torch.Generator().manual_seed(100))
    embeddings = person[identity] + noise * torch.randn(len(records), 16, generator=random)
    results = evaluate_protocols(protocols, embeddings, records, refinement or Refinement())
    found = Evaluation("SYSU-MM01", "sysu", 1, "/data", "", False, f"run-{noise}-{seed}", "", results, [], {}, {})
    return replace(found, **changes)


def compare(first, other, protocol=None):
    return difference_of_groups([first], [other], protocol)


def compare_runs(evaluations, names, protocol=None):
    return compare_groups([[evaluation] for evaluation in evaluations], names, protocol)


@pytest.fixture(scope="module")
def good():
    return evaluation(0.8)


@pytest.fixture(scope="module")
def bad():
    return evaluation(1.6, seed=1)


def sums(found, metric, protocol=0):
    by_identity = found.protocols[protocol].by_identity
    return np.array(by_identity.sums[metric]), np.array(by_identity.queries)


def test_difference_and_interval_equal_the_direct_computation(good, bad):
    found = compare(bad, good)
    assert list(found) == ["R1", "R10", "R20", "mAP", "mINP"]
    draws = np.random.default_rng(0).multinomial(PEOPLE, [1 / PEOPLE] * PEOPLE, size=SAMPLES)
    for name, difference in found.items():
        (a, n), (b, m) = sums(bad, name), sums(good, name)
        resampled = [(w * b).sum() / (w * m).sum() - (w * a).sum() / (w * n).sum() for w in draws]
        assert difference.first == pytest.approx(bad.protocols[0].metrics[name].mean)
        assert difference.other == pytest.approx(good.protocols[0].metrics[name].mean)
        assert difference.difference == pytest.approx(difference.other - difference.first)
        assert [difference.low, difference.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    assert found["mAP"].certain
    assert found["mAP"].difference > 0


def test_turned_round_and_with_itself(good, bad):
    there, back, itself = compare(good, bad)["mAP"], compare(bad, good)["mAP"], compare(good, good)["mAP"]
    assert [there.difference, there.low, there.high] == pytest.approx([-back.difference, -back.high, -back.low])
    assert (itself.difference, itself.low, itself.high, itself.certain) == (0, 0, 0, False)


def test_another_protocol(good, bad):
    name = good.protocols[2].protocol
    expected = [saved.protocols[2].metrics["mAP"].mean for saved in (good, bad)]
    found = compare(good, bad, name)["mAP"]
    assert [found.first, found.other] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("difference", "certain"), [((0.1, 0.0, 0.2), False), ((0.1, 0.01, 0.2), True), ((-0.1, -0.2, -0.01), True)]
)
def test_certain_is_what_excludes_0(difference, certain):
    assert Difference(0.5, 0.5, *difference, identities=10).certain == certain
    assert not Difference(0.5, 0.5, *difference, identities=9).certain


def test_groups_of_seeds():
    first = [evaluation(1.2, seed=seed) for seed in range(3)]
    other = [evaluation(1.0, seed=seed) for seed in range(3, 5)]
    found = difference_of_groups(first, other)["mAP"]
    means = [fmean(saved.protocols[0].metrics["mAP"].mean for saved in group) for group in (first, other)]
    assert [found.first, found.other, found.difference] == pytest.approx([*means, means[1] - means[0]])
    a, b = (sum(sums(saved, "mAP")[0] for saved in group) for group in (first, other))
    n = sums(first[0], "mAP")[1]
    draws = np.random.default_rng(0).multinomial(PEOPLE, [1 / PEOPLE] * PEOPLE, size=SAMPLES)
    resampled = draws @ b / (draws @ (2 * n)) - draws @ a / (draws @ (3 * n))
    assert [found.low, found.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    assert difference_of_groups(first[:1], other[:1]) == compare(first[0], other[0])
    with pytest.raises(CsviError, match=r"run-1\.0-3 was given twice: a mean counts every run once"):
        difference_of_groups(first, [*other, other[0]])


def test_people_of_different_folds_are_resampled_apart():
    """As RegDB's folds: their labels are equal numbers, of different people, and may be of different counts."""
    fewer = [record for record in RECORDS if record.identity <= 12]
    protocols = sysu_protocols(fewer, trials=2)
    first = [evaluation(1.2, fold=1), evaluation(1.2, 1, fewer, protocols, fold=2)]
    other = [evaluation(1.0, 2, fold=1), evaluation(1.0, 3, fewer, protocols, fold=2)]
    found = difference_of_groups(first, other[::-1])["mAP"]
    (a, n), (b, m) = (
        [np.concatenate(column) for column in zip(*(sums(s, "mAP") for s in group), strict=True)]
        for group in (first, other)
    )
    people = PEOPLE + 12
    draws = np.random.default_rng(0).multinomial(people, [1 / people] * people, size=SAMPLES)
    resampled = draws @ b / (draws @ m) - draws @ a / (draws @ n)
    assert found.difference == pytest.approx(b.sum() / m.sum() - a.sum() / n.sum())
    assert [found.low, found.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    with pytest.raises(CsviError, match=r"different folds, \[1, 2\] and \[1\]"):
        difference_of_groups(first, other[:1])
    with pytest.raises(CsviError, match=r"different folds, \[1\] and \[2\]"):
        compare(first[0], other[1])


def changed(found, **changes):
    """Changes of the first protocol."""
    first, *others = found.protocols
    return replace(found, protocols=[replace(first, **changes), *others])


def test_what_was_not_asked_the_same_is_not_compared(good):
    few = [record for record in RECORDS if record.identity != 7]
    one_less = [record for record in RECORDS if record.path != "cam3/0006/0001.jpg"]
    for other, message in (
        (replace(good, benchmark="RegDB"), "benchmark: SYSU-MM01 and RegDB"),
        (replace(good, layout="llcm"), "layout: sysu and llcm"),
        (replace(good, synthetic=True), "synthetic: False and True"),
        (replace(good, fold=2), r"different folds, \[1\] and \[2\]"),
        (changed(good, gallery="official"), "galleries: seeded and official"),
        (changed(good, protocol="mine"), "not evaluated under 'all-search single-shot': choose one of mine, all-sea"),
        (evaluation(1, records=few, protocols=sysu_protocols(few, trials=2)), "identities asked for .* differ"),
        (evaluation(1, records=one_less, protocols=sysu_protocols(one_less, trials=2)), "other queries"),
        (evaluation(1, protocols=sysu_protocols(RECORDS, trials=3)), "other queries"),
    ):
        with pytest.raises(CsviError, match=message):
            compare(good, other)
        with pytest.raises(CsviError, match=f"a and b cannot be compared: .*{message}"):
            compare_runs([good, other], ["a", "b"])
    with pytest.raises(CsviError, match="not evaluated under 'tracking': choose one of all-search single-shot, "):
        compare_runs([good], ["a"], "tracking")


def test_the_images_decide_and_not_what_they_are_called(good, bad):
    """A folder's benchmark has the folder's name."""
    here = replace(good, fingerprint="f00")
    there = replace(bad, fingerprint="f00", benchmark="a copy", layout="folder")
    assert compare(here, there) == compare(good, bad)
    rendered = compare_runs([here, replace(there, synthetic=True)], ["a", "b"])
    assert (rendered.benchmark, rendered.synthetic) == ("SYSU-MM01", True)
    with pytest.raises(CsviError, match="the test images differ"):
        compare(here, replace(bad, fingerprint="f01"))
    with pytest.raises(CsviError, match="benchmark: SYSU-MM01 and a copy"):
        compare(here, replace(there, fingerprint=""))
    with pytest.raises(CsviError, match="galleries: seeded and official"):
        compare(here, changed(there, gallery="official"))


def test_every_fold_is_compared_with_itself(good, bad):
    """Fingerprints of different folds differ; of a copy elsewhere those of each fold are the same."""
    first = [replace(good, fold=fold, fingerprint=f"f{fold}") for fold in (1, 2)]
    other = [replace(bad, fold=fold, fingerprint=f"f{fold}", benchmark="a copy") for fold in (2, 1)]
    assert difference_of_groups(first, other)["mAP"].identities == 2 * PEOPLE
    with pytest.raises(CsviError, match="the test images differ"):
        difference_of_groups(first, [replace(other[0], fingerprint="f1", benchmark="SYSU-MM01"), other[1]])
    with pytest.raises(CsviError, match="benchmark: SYSU-MM01 and a copy"):
        difference_of_groups([first[0], other[0]], [first[0], other[0]])


def of_settings(found, method, **sections):
    return replace(found, settings=shared_by_repetitions(Config(method, **sections)))


def test_a_group_of_runs_that_are_no_repetitions_has_no_mean(good):
    seeds = [evaluation(1.2, seed=seed) for seed in range(3)]
    of_coseg = [of_settings(found, CoSeg.Settings(), seed=seed) for seed, found in enumerate(seeds)]
    shorter = of_settings(seeds[2], CoSeg.Settings(), train=TrainConfig(epochs=3))
    baseline = of_settings(seeds[2], Baseline.Settings(), train=TrainConfig(epochs=3))
    assert compare_groups([[good], of_coseg], ["a", "b"]).rows[1].metrics == pytest.approx(
        {
            name: fmean(found.protocols[0].metrics[name].mean for found in seeds)
            for name in ("R1", "R10", "R20", "mAP", "mINP")
        }
    )
    assert compare_groups([[good], seeds], ["a", "b"]).unlike == []  # embeddings of other code know no settings
    for mixed, message in (
        ([*of_coseg[:2], shorter], "run-1.2-2, as their settings differ: train.epochs"),
        ([*of_coseg[:2], baseline], "run-1.2-2, as their settings differ: method.name, method.segmentation_weight, "),
        ([*of_coseg[:2], seeds[2]], "run-1.2-2, as the settings of run-1.2-2 are not known"),
    ):
        for groups in ([[good], mixed], [mixed, [good]]):
            with pytest.raises(CsviError, match=f"no mean over run-1.2-0, run-1.2-1, {message}"):
                compare_groups(groups, ["a", "b"])


def test_what_runs_differ_in_beside_their_method_is_said(good, bad, capsys):
    other = TrainConfig(epochs=3)
    coseg = of_settings(good, CoSeg.Settings(weights="none"))
    baseline = of_settings(bad, Baseline.Settings(weights="none", parts=3), data=DataConfig(height=32), train=other)
    print_comparison(compare_runs([coseg, baseline], ["coseg", "baseline"]))
    assert (
        "Beside the method's name they differ in: method.parts, data.height, train.epochs\n"
    ) in capsys.readouterr().out.replace(" \n", " ")
    elsewhere = of_settings(
        bad, CoSeg.Settings(weights="none"), data=DataConfig(root="r", workers=0, cache="c"), seed=1
    )
    no_setting = of_settings(bad, MethodSettings("ours:Ours"))
    for alike in (elsewhere, no_setting, bad):  # without weights; of other code
        print_comparison(compare_runs([coseg, alike], ["first", "other"]))
        assert "they differ in" not in capsys.readouterr().out
    pretrained = of_settings(good, Baseline.Settings())
    assert compare_runs([pretrained, no_setting], ["a", "b"]).unlike == ["method.weights"]
    assert compare_runs([pretrained, bad, no_setting], ["a", "b", "c"]).unlike == ["method.weights"]


def test_metrics_that_both_have_are_compared(good, bad):
    more = copy.deepcopy(good)
    for result in more.protocols:
        sums = result.by_identity.sums
        sums.update({"R50": sums["R20"], **sums})
    assert compare(more, bad) == compare(good, bad)
    assert compare(bad, more) == compare(bad, good)


def test_runs_side_by_side(good, bad):
    comparison = compare_runs([good, bad, good], ["good", "bad", "again"])
    assert (comparison.benchmark, comparison.protocol, comparison.gallery, comparison.identities) == (
        "SYSU-MM01",
        "all-search single-shot",
        "seeded",
        PEOPLE,
    )
    assert [row.name for row in comparison.rows] == ["good", "bad", "again"]
    assert [row.differences for row in comparison.rows] == [{}, compare(good, bad), compare(good, good)]
    assert comparison.rows[1].metrics["mAP"] == pytest.approx(bad.protocols[0].metrics["mAP"].mean)


def test_printed_comparison_fits_80_columns_and_says_what_it_is(good, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    expanded = evaluation(0.8, refinement=Refinement(expand=3), synthetic=True)
    worst = copy.deepcopy(replace(good, synthetic=True))
    for values in worst.protocols[0].by_identity.sums.values():
        values[:] = [0.0] * len(values)
    names = ["runs/a-rather-long-name/seed-1", "[b]", "worst"]
    print_comparison(compare_runs([replace(good, synthetic=True), expanded, worst], names))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for said in (
        "SYSU-MM01, all-search single-shot, seeded galleries",
        "Synthetic data",
        "[b] with query expansion (3 neighbours, alpha 3)",
        "not refined alike",
        f"over {PEOPLE} identities",
    ):
        assert said in " ".join(text.split())
    line = next(line for line in text.splitlines() if line.startswith("worst"))
    assert line.split()[1:5] == ["0.0", "0.0", "0.0", f"{-100 * good.protocols[0].metrics['R1'].mean:+.1f}"]
    assert line.rstrip().endswith("]*")


def with_metrics(found, *names):
    """Metrics of one's own, all equal to mAP."""
    results = []
    for result in found.protocols:
        sums = result.by_identity.sums
        by_identity = replace(result.by_identity, sums=sums | dict.fromkeys(names, sums["mAP"]))
        metrics = result.metrics | dict.fromkeys(names, result.metrics["mAP"])
        results.append(replace(result, metrics=metrics, by_identity=by_identity))
    return replace(found, protocols=results)


def test_a_metric_of_ones_own_is_compared_where_all_have_it(good, bad, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    runs = [with_metrics(run, "MRR", "R5") for run in (good, bad)]
    print_comparison(compare_runs(runs, ["runs/a-rather-long-name/seed-1", "bad"]))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = text.split()
    first, other = (f"{100 * run.protocols[0].metrics['mAP'].mean:.1f}" for run in runs)
    assert (words.count(first), words.count(other)) == (3, 3)
    cell = difference_cell(compare(*runs)["mAP"]).strip()
    assert text.count(cell) == 3
    for name in ("MRR", "R5"):
        assert f"Δ {name} [low, high]" in text
    print_comparison(compare_runs([*runs, good], ["a", "b", "without"]))
    text = capsys.readouterr().out
    assert "MRR" not in text
    assert "mINP" in text


@pytest.mark.parametrize("width", [80, 60, 40])
def test_no_number_of_an_evaluation_is_cut(good, bad, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    found = with_metrics(good, "MRR", "R5", "nDCG")
    print_evaluation(found)
    print_summary(summarize([found, with_metrics(bad, "MRR", "R5", "nDCG")]), found)
    text = capsys.readouterr().out
    assert "…" not in text
    words = Counter(text.split())
    for result in found.protocols:
        cells = Counter(percent(metric) for metric in result.metrics.values())
        assert all(words[cell] >= count for cell, count in cells.items())
        assert words[f"{100 * result.chance:.1f}"] >= 1


def test_plain_comparison_warns_of_nothing(good, bad, capsys):
    print_comparison(compare_runs([good, bad], ["good", "bad"]))
    text = capsys.readouterr().out
    assert "Synthetic" not in text
    assert "refined" not in text


def test_few_identities_make_no_difference_certain(capsys):
    """With one, every resample is the same: an interval of length 0, wherever it lies."""
    for people, said in ((1, "over 1 identity; below 10 no difference is certain"), (9, "over 9 identities; below 10")):
        few = [record for record in RECORDS if record.identity <= people]
        protocols = sysu_protocols(few, trials=2)
        first, other = evaluation(0.1, records=few, protocols=protocols), evaluation(9.0, 1, few, protocols)
        for values in other.protocols[0].by_identity.sums.values():
            values[:] = [0.0] * people
        found = compare(first, other)["mAP"]
        assert (found.identities, found.high < 0, found.certain) == (people, True, False)
        print_comparison(compare_runs([first, other], ["first", "other"]))
        text = " ".join(capsys.readouterr().out.split())
        assert said in text
        assert "*" not in text
    assert compare(evaluation(0.1), evaluation(9.0, 1))["mAP"].identities == PEOPLE


def test_cells():
    assert difference_cell(Difference(0.5, 0.512, 0.012, 0.003, 0.021, 25)) == "+1.2 [+0.3, +2.1]*"
    assert difference_cell(Difference(0.5, 0.49, -0.01, -0.03, 0.01, 25)) == "-1.0 [-3.0, +1.0] "


def test_the_mean_over_runs():
    """Against numbers worked out directly; R1 of several protocols."""
    several = [evaluation(noise, seed) for seed, noise in enumerate((0.8, 1.2, 1.6))]
    summary = summarize(several)
    assert summary.models == [found.model for found in several]
    assert summary.folds == [1, 1, 1]
    for p, protocol in enumerate(PROTOCOLS):
        values = [found.protocols[p].metrics["R1"].mean for found in several]
        mean = summary.metrics[protocol.name]["R1"]
        assert mean.runs == values
        assert mean.mean == pytest.approx(np.mean(values))
        assert mean.std == pytest.approx(np.std(values, ddof=1))


def test_no_mean_over_different_things(good, bad):
    for other, message in (
        (good, "was given twice"),
        (replace(bad, benchmark="another"), "would mean nothing: .*other data .benchmark: SYSU-MM01 and another"),
        (replace(bad, fingerprint="f01"), "the test images differ"),
        (changed(bad, gallery="official"), "galleries: seeded and official"),
        (changed(bad, refinements=["query expansion"]), "tested under different protocols"),
        (replace(bad, protocols=bad.protocols[:2]), "tested under different protocols"),
    ):
        with pytest.raises(CsviError, match=message):
            summarize([replace(good, fingerprint="f00") if other.fingerprint else good, other])
    with pytest.raises(CsviError, match="benchmark: SYSU-MM01 and another"):  # even where images are known to be equal
        summarize([replace(good, fingerprint="f"), replace(bad, fingerprint="f", benchmark="another")])


def test_what_repetitions_may_differ_in(good):
    """Docs/protocols.md: seed, fold and whatever only says where and how the work is done."""
    first = Config(CoSeg.Settings())
    repetition = Config(
        CoSeg.Settings(),
        data=DataConfig(root="elsewhere", fold=3, masks="m", workers=0, cache="c"),
        train=TrainConfig(validate_every=5, checkpoint_every=1, compile=True, on_nonfinite="skip"),
        seed=1,
        precision="32-true",
        devices=2,
        nodes=2,
    )

    def differing(*configs):
        return differing_settings([replace(good, settings=shared_by_repetitions(config)) for config in configs])

    assert differing(first, repetition) == []
    other = Config(Baseline.Settings(backbone="resnet18"), data=DataConfig(height=32), train=TrainConfig(epochs=3))
    assert differing(first, repetition, other) == [
        "method.name", "method.backbone", "method.segmentation_weight", "method.decoder", "method.mask_channels",
        "method.weights_from", "method.activation", "method.ccwg_bias", "method.weights_to", "method.head",
        "method.head_weight", "method.detach", "data.height", "train.epochs",
    ]  # fmt: skip
