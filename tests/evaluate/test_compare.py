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
    assert Difference(0.5, 0.5, *difference, identities=10).certain == certain
    assert not Difference(0.5, 0.5, *difference, identities=9).certain


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


def test_the_images_decide_and_not_what_they_are_called(good, bad):
    """A folder's benchmark has the folder's name."""
    here, there = (
        good | {"fingerprint": "f00"},
        bad | {"fingerprint": "f00", "benchmark": "a copy", "dataset": "folder"},
    )
    assert compare(here, there) == compare(good, bad)
    rendered = compare_runs([here, there | {"synthetic": True}], ["a", "b"])
    assert (rendered.benchmark, rendered.synthetic) == ("SYSU-MM01", True)
    with pytest.raises(CsviError, match="the test images differ"):
        compare(here, bad | {"fingerprint": "f01"})
    for unknown in ({"fingerprint": ""}, {"fingerprint": None}, {}):
        plain = there | unknown
        if not unknown:
            del plain["fingerprint"]
        with pytest.raises(CsviError, match="benchmark: SYSU-MM01 and a copy"):
            compare(here, plain)
    with pytest.raises(CsviError, match="galleries: seeded and official"):
        compare(here, changed(there, gallery="official"))


def test_every_split_is_compared_with_itself(good, bad):
    """Fingerprints of different splits differ; of a copy elsewhere those of each split are the same."""
    first = [good | {"trial": trial, "fingerprint": f"f{trial}"} for trial in (1, 2)]
    other = [bad | {"trial": trial, "fingerprint": f"f{trial}", "benchmark": "a copy"} for trial in (2, 1)]
    assert difference_of_groups(first, other)["mAP"].identities == 2 * PEOPLE
    with pytest.raises(CsviError, match="the test images differ"):
        difference_of_groups(first, [other[0] | {"fingerprint": "f1", "benchmark": "SYSU-MM01"}, other[1]])
    with pytest.raises(CsviError, match="benchmark: SYSU-MM01 and a copy"):
        difference_of_groups([first[0], other[0]], [first[0], other[0]])


def test_figures_that_both_have_are_compared(good, bad):
    more = copy.deepcopy(good)
    for result in more["protocols"]:
        sums = result["by_identity"]["sums"]
        result["by_identity"]["sums"] = {"R50": sums["R20"], **sums}
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


def test_few_identities_make_no_difference_certain(capsys):
    """With one, every resample is the same: an interval of length 0, wherever it lies."""
    for people, said in ((1, "over 1 identity; below 10 no difference is certain"), (9, "over 9 identities; below 10")):
        few = [record for record in RECORDS if record.identity <= people]
        protocols = sysu_protocols(few, trials=2)
        first, other = evaluation(0.1, records=few, protocols=protocols), evaluation(9.0, 1, few, protocols)
        for values in other["protocols"][0]["by_identity"]["sums"].values():
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


def test_load_evaluation_as_it_is_printed(good, bad, tmp_path):
    file = tmp_path / "printed.json"
    file.write_text(json.dumps({"evaluations": [good], "summary": None, "differing_settings": []}))
    assert load_evaluation(file) == good
    for several in ([], [good, bad]):
        file.write_text(json.dumps({"evaluations": several, "summary": None}))
        with pytest.raises(CsviError, match=rf"printed\.json holds {len(several)} evaluations: give a file with one"):
            load_evaluation(file)
    for content in ({"evaluations": [3]}, {"evaluations": {}}, {"evaluations": [[good]]}, {"evaluations": [{}]}):
        file.write_text(json.dumps(content))
        with pytest.raises(CsviError, match="is no evaluation"):
            load_evaluation(file)


def damaged(saved, **changes):
    """Changes of what the second protocol says of each identity; None leaves it out."""
    by_identity = saved["protocols"][1]["by_identity"] | changes
    saved = copy.deepcopy(saved)
    saved["protocols"][1]["by_identity"] = {key: value for key, value in by_identity.items() if value is not None}
    return saved


@pytest.mark.parametrize(
    "changes",
    [
        *({key: value} for key in ("identity", "queries", "sums") for value in (None, 3, "x", {}, [], ["a"] * PEOPLE)),
        {"identity": [1]},
        {"queries": [1]},
        {"queries": [0] * PEOPLE},
        {"queries": [True] * PEOPLE},
        {"queries": [1.5] * PEOPLE},
        {"queries": [10**400] * PEOPLE},
        {"identity": [], "queries": [], "sums": {name: [] for name in ("R1", "mAP", "mINP")}},
        {"sums": {"R1": [1.0] * PEOPLE}},
        {"sums": {name: [1.0] * PEOPLE for name in ("R1", "mAP")} | {"mINP": [1.0]}},
        {"sums": {name: [float("nan")] * PEOPLE for name in ("R1", "mAP", "mINP")}},
        {"sums": {name: [10**400] * PEOPLE for name in ("R1", "mAP", "mINP")}},
        {"sums": dict.fromkeys(("R1", "mAP", "mINP"))},
    ],
)
def test_damaged_evaluations(good, tmp_path, changes):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(damaged(good, **changes)))
    with pytest.raises(CsviError, match=r"evaluation\.json is no evaluation: .*, evaluate the run again$"):
        load_evaluation(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmark": 3},
        {"synthetic": "no"},
        {"trial": "one"},
        {"trial": [1]},
        {"fingerprint": 3},
        {"protocols": "all"},
        {"protocols": [{"protocol": 3, "gallery": "all"}]},
        {"protocols": [{"protocol": "all"}]},
    ],
)
def test_what_is_no_evaluation(good, tmp_path, changes):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(good | changes))
    with pytest.raises(CsviError, match="is no evaluation: give a run folder"):
        load_evaluation(file)


def test_files_that_are_no_evaluation_in_other_ways(good, tmp_path, monkeypatch):
    file = tmp_path / "evaluation.json"
    file.write_text("[" * 100_000)
    with pytest.raises(CsviError, match="is no evaluation"):
        load_evaluation(file)
    for changes in ({"by_identity": {}}, {"by_identity": None}, {"refinements": 3}, {"refinements": [3]}):
        file.write_text(json.dumps(changed(good, **changes)))
        with pytest.raises(CsviError, match="is no evaluation"):
            load_evaluation(file)

    def deny(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(file), "read_text", deny)
    with pytest.raises(CsviError, match=r"^cannot read .*evaluation.json: Permission denied$"):
        load_evaluation(file)
