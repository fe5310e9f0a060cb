"""Runs against each other, by numbers computed directly; and what cannot be compared."""

import copy
import dataclasses
import json
from statistics import fmean

import numpy as np
import pytest
import torch

from csvi.analysis.comparison_table import difference_cell, print_comparison
from csvi.data.records import ImageRecord
from csvi.data.sysu_mm01 import MODALITIES
from csvi.errors import CsviError
from csvi.evaluate import Refinement, evaluate_protocols, sysu_protocols
from csvi.evaluate.compare import Difference, compare, compare_runs, difference_of_groups, load_evaluation
from csvi.evaluate.intervals import SAMPLES

PEOPLE = 25
RECORDS = [
    ImageRecord(f"cam{camera}/{identity:04d}/{n:04d}.jpg", identity, camera, modality)
    for camera, modality in MODALITIES.items()
    for identity in range(1, PEOPLE + 1)
    for n in range(1, 2 + (identity + camera) % 3)
]
PROTOCOLS = sysu_protocols(RECORDS, trials=2)


def evaluation(noise, seed=0, records=RECORDS, protocols=PROTOCOLS, refinement=None, **changes):
    """As it is saved: of embeddings so far from a point for each person."""
    random = torch.Generator().manual_seed(seed)
    identity = torch.tensor([record.identity for record in records])
    person = torch.randn(PEOPLE + 1, 16, generator=torch.Generator().manual_seed(100))
    embeddings = person[identity] + noise * torch.randn(len(records), 16, generator=random)
    results = evaluate_protocols(protocols, embeddings, records, refinement or Refinement())
    saved = {
        "benchmark": "SYSU-MM01",
        "dataset": "sysu",
        "trial": 1,
        "root": "/data",
        "synthetic": False,
        "protocols": [dataclasses.asdict(result) for result in results],
        "version": "0",
    }
    return json.loads(json.dumps(saved)) | changes


@pytest.fixture(scope="module")
def good():
    return evaluation(0.8)


@pytest.fixture(scope="module")
def bad():
    return evaluation(1.6, seed=1)


def sums(saved, figure, protocol=0):
    by_identity = saved["protocols"][protocol]["by_identity"]
    return np.array(by_identity["sums"][figure]), np.array(by_identity["queries"])


def test_difference_and_interval_equal_the_direct_computation(good, bad):
    found = compare(bad, good)
    assert list(found) == ["R1", "R10", "R20", "mAP", "mINP"]
    draws = np.random.default_rng(0).multinomial(PEOPLE, [1 / PEOPLE] * PEOPLE, size=SAMPLES)
    for name, difference in found.items():
        (a, n), (b, m) = sums(bad, name), sums(good, name)
        resampled = [(w * b).sum() / (w * m).sum() - (w * a).sum() / (w * n).sum() for w in draws]
        assert difference.first == pytest.approx(bad["protocols"][0]["figures"][name]["mean"])
        assert difference.other == pytest.approx(good["protocols"][0]["figures"][name]["mean"])
        assert difference.difference == pytest.approx(difference.other - difference.first)
        assert [difference.low, difference.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    assert found["mAP"].certain
    assert found["mAP"].difference > 0


def test_turned_round_and_with_itself(good, bad):
    there, back, itself = compare(good, bad)["mAP"], compare(bad, good)["mAP"], compare(good, good)["mAP"]
    assert [there.difference, there.low, there.high] == pytest.approx([-back.difference, -back.high, -back.low])
    assert (itself.difference, itself.low, itself.high, itself.certain) == (0, 0, 0, False)


def test_another_protocol(good, bad):
    name = good["protocols"][2]["protocol"]
    expected = [saved["protocols"][2]["figures"]["mAP"]["mean"] for saved in (good, bad)]
    found = compare(good, bad, name)["mAP"]
    assert [found.first, found.other] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("difference", "certain"), [((0.1, 0.0, 0.2), False), ((0.1, 0.01, 0.2), True), ((-0.1, -0.2, -0.01), True)]
)
def test_certain_is_what_excludes_0(difference, certain):
    assert Difference(0.5, 0.5, *difference).certain == certain


def test_groups_of_seeds():
    first = [evaluation(1.2, seed=seed) for seed in range(3)]
    other = [evaluation(1.0, seed=seed) for seed in range(3, 5)]
    found = difference_of_groups(first, other)["mAP"]
    means = [fmean(saved["protocols"][0]["figures"]["mAP"]["mean"] for saved in group) for group in (first, other)]
    assert [found.first, found.other, found.difference] == pytest.approx([*means, means[1] - means[0]])
    a, b = (sum(sums(saved, "mAP")[0] for saved in group) for group in (first, other))
    n = sums(first[0], "mAP")[1]
    draws = np.random.default_rng(0).multinomial(PEOPLE, [1 / PEOPLE] * PEOPLE, size=SAMPLES)
    resampled = draws @ b / (draws @ (2 * n)) - draws @ a / (draws @ (3 * n))
    assert [found.low, found.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    assert difference_of_groups(first[:1], other[:1]) == compare(first[0], other[0])


def test_people_of_different_splits_are_resampled_apart():
    """As RegDB's splits: their labels are equal numbers, of different people, and may be of different counts."""
    fewer = [record for record in RECORDS if record.identity <= 12]
    protocols = sysu_protocols(fewer, trials=2)
    first = [evaluation(1.2, trial=1), evaluation(1.2, 1, fewer, protocols, trial=2)]
    other = [evaluation(1.0, 2, trial=1), evaluation(1.0, 3, fewer, protocols, trial=2)]
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
    with pytest.raises(CsviError, match=r"different splits, \[1, 2\] and \[1\]"):
        difference_of_groups(first, other[:1])
    with pytest.raises(CsviError, match=r"different splits, \[1\] and \[2\]"):
        compare(first[0], other[1])


def changed(saved, **changes):
    """Changes of the first protocol."""
    saved = copy.deepcopy(saved)
    saved["protocols"][0] |= changes
    return saved


def test_what_was_not_asked_the_same_is_not_compared(good):
    few = [record for record in RECORDS if record.identity != 7]
    one_less = [record for record in RECORDS if record.path != "cam3/0006/0001.jpg"]
    for other, message in (
        (good | {"benchmark": "RegDB"}, "benchmark: SYSU-MM01 and RegDB"),
        (good | {"dataset": "llcm"}, "dataset: sysu and llcm"),
        (good | {"synthetic": True}, "synthetic: False and True"),
        (good | {"trial": 2}, r"different splits, \[1\] and \[2\]"),
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
    assert comparison.rows[1].figures["mAP"] == pytest.approx(bad["protocols"][0]["figures"]["mAP"]["mean"])


def test_printed_comparison_fits_80_columns_and_says_what_it_is(good, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    expanded = evaluation(0.8, refinement=Refinement(expand=3), synthetic=True)
    worst = copy.deepcopy(good) | {"synthetic": True}
    for values in worst["protocols"][0]["by_identity"]["sums"].values():
        values[:] = [0.0] * len(values)
    names = ["runs/a-rather-long-name/seed-1", "[b]", "worst"]
    print_comparison(compare_runs([good | {"synthetic": True}, expanded, worst], names))
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
    assert line.split()[1:5] == ["0.0", "0.0", "0.0", f"{-100 * good['protocols'][0]['figures']['R1']['mean']:+.1f}"]
    assert line.rstrip().endswith("]*")


def test_plain_comparison_warns_of_nothing(good, bad, capsys):
    print_comparison(compare_runs([good, bad], ["good", "bad"]))
    text = capsys.readouterr().out
    assert "Synthetic" not in text
    assert "refined" not in text


def test_cells():
    assert difference_cell(Difference(0.5, 0.512, 0.012, 0.003, 0.021)) == "+1.2 [+0.3, +2.1]*"
    assert difference_cell(Difference(0.5, 0.49, -0.01, -0.03, 0.01)) == "-1.0 [-3.0, +1.0] "


def test_load_evaluation(good, tmp_path):
    file = tmp_path / "evaluation.json"
    with pytest.raises(CsviError, match=f"evaluate it first, csvi evaluate {tmp_path}$"):
        load_evaluation(tmp_path)
    with pytest.raises(CsviError, match=f"evaluate it first, csvi evaluate {tmp_path}$"):
        load_evaluation(tmp_path / "evaluation-official.json")
    with pytest.raises(CsviError, match=r"no .*nowhere: evaluate it first, csvi evaluate .*nowhere$"):
        load_evaluation(tmp_path / "nowhere")
    file.write_text(json.dumps(good))
    assert load_evaluation(tmp_path) == load_evaluation(file) == good
    for content in (
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"protocols": 3}',
        '{"protocols": []}',
        '{"benchmark": "B", "synthetic": true, "protocols": []}',
        '{"benchmark": "B", "synthetic": true, "protocols": {}}',
        '{"benchmark": "B", "synthetic": true, "protocols": [3]}',
        '{"benchmark": "B", "synthetic": true, "protocols": [{}]}',
    ):
        file.write_text(content)
        with pytest.raises(CsviError, match="is no evaluation: give a run folder"):
            load_evaluation(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CsviError, match="is no evaluation"):
        load_evaluation(file)
    old = copy.deepcopy(good) | {"version": "0.0.9"}
    del old["protocols"][1]["by_identity"]
    file.write_text(json.dumps(old))
    with pytest.raises(CsviError, match=r"csvi 0\.0\.9, which did not save .*: evaluate the run again"):
        load_evaluation(file)
