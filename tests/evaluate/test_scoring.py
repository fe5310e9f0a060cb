"""Every protocol against its definition, in plain Python: drawn, ranked and averaged one image at a time."""

import random
from collections import Counter
from dataclasses import replace
from itertools import chain, product
from math import dist, log2
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch

from csvi.data import LAYOUTS, find_layout
from csvi.data.records import ImageRecord, Modality
from csvi.errors import NothingToScoreError
from csvi.evaluate import METRICS, Protocol, Rules, Trial, evaluate_protocol, evaluate_protocols
from csvi.evaluate.protocols import DISTRACTOR, answerable, camera_pairs
from csvi.evaluate.scoring import evaluate_camera_pairs

VISIBLE, INFRARED = Modality
TRIALS = 3
REPORTED = ["R1", "R10", "R20", "mAP", "mINP"]
CAMERAS = {
    "sysu": {VISIBLE: (1, 2, 4, 5), INFRARED: (3, 6)},
    "regdb": {VISIBLE: (1,), INFRARED: (2,)},
    "llcm": {VISIBLE: (1, 2, 3, 4), INFRARED: (1, 2, 4)},
    "folder": {VISIBLE: (1, 2, 3), INFRARED: (2, 3, 7)},
}


def protocols_in(layout, records, trials=TRIALS):
    return find_layout(layout).protocols(records, find_layout(layout).draws[0], Path(), trials)


def some_records(layout, seed=0):
    """A camera sees 16 of 26 people, in up to 14 images each; in no order."""
    choose = random.Random(seed)
    records = [
        ImageRecord(f"{modality.name}/cam{camera}/{identity:04d}/{n:04d}.jpg", identity, camera, modality)
        for modality, cameras in CAMERAS[layout].items()
        for camera in cameras
        for identity in choose.sample(range(3, 81, 3), 16)
        for n in range(1, choose.randint(1, 14) + 1)
    ]
    choose.shuffle(records)
    return records


def some_embeddings(records, ties, seed=0):
    """Of one person alike; `ties`: whole numbers, so that many distances are exactly equal."""
    generator = np.random.default_rng(seed)
    person = {record.identity: generator.normal(size=6) for record in sorted(records, key=lambda r: r.identity)}
    values = np.array([person[record.identity] for record in records]) + generator.normal(size=(len(records), 6))
    return torch.from_numpy(values.round() if ties else values)


# ---- the definition


def images_of(records, modality):
    """(identity, camera) → files in the order of their names."""
    images = {}
    for record in records:
        if record.modality == modality:
            images.setdefault((record.identity, record.camera), []).append(record)
    return {key: sorted(files, key=lambda record: record.path) for key, files in images.items()}


def one_of_each(records, modality, cameras, seed):
    random.seed(seed)
    images = images_of(records, modality)
    gallery = []
    for identity in sorted({identity for identity, _ in images}):
        for camera in cameras:
            if (identity, camera) in images:
                gallery.append(random.choice(images[identity, camera]))
    return gallery


def ten_of_each(records, modality, cameras, seed):
    draw = np.random.RandomState(seed)
    images = images_of(records, modality)
    gallery = []
    for identity in sorted({identity for identity, _ in images}):
        for camera in cameras:
            files = images.get((identity, camera), [])
            if files:
                gallery += [files[i] for i in draw.choice(len(files), min(10, len(files)), replace=False)]
    return gallery


def definition(layout, records):
    """Protocol → (queries, gallery) of each trial."""
    visible, infrared = ([r for r in records if r.modality == modality] for modality in (VISIBLE, INFRARED))
    if layout == "sysu":
        return {
            f"{mode} {shots}": [(infrared, draw(records, VISIBLE, cameras, t)) for t in range(TRIALS)]
            for mode, cameras in (("all-search", (1, 2, 4, 5)), ("indoor-search", (1, 2)))
            for shots, draw in (("single-shot", one_of_each), ("multi-shot", ten_of_each))
        }
    if layout == "regdb":
        return {"visible to thermal": [(visible, infrared)], "thermal to visible": [(infrared, visible)]}
    if layout == "llcm":
        of_visible = [one_of_each(records, VISIBLE, range(1, 10), t) for t in range(TRIALS)]
        of_infrared = [one_of_each(records, INFRARED, (1, 2, 4, 5, 6, 7, 8, 9), t) for t in range(TRIALS)]
        return {
            "infrared to visible": [(infrared, gallery) for gallery in of_visible],
            "visible to infrared": [(visible, gallery) for gallery in of_infrared],
            "llcm-swapped": [(query, visible) for query in of_infrared],
        }
    return {"infrared to visible": [(infrared, visible)], "visible to infrared": [(visible, infrared)]}


def removed(layout, query, image):
    if layout == "sysu":
        return query.camera == 3 and image.camera == 2
    if layout in ("llcm", "folder"):
        return query.identity == image.identity and query.camera == image.camera
    return False


def slow_queries(layout, queries, gallery, embedding):
    """(identity, {metric: value}, chance) of every query that counts."""
    found = []
    for query in queries:
        ranking = [
            (dist(embedding[query.path], embedding[image.path]), image.identity == query.identity, image.identity)
            for image in gallery
            if not removed(layout, query, image)
        ]
        ranking.sort(key=lambda image: image[:2])  # among equals, the wrong ones first
        positions = [place for place, (_, right, _) in enumerate(ranking, start=1) if right]
        if not positions:
            continue
        first = positions[0]
        if layout in ("sysu", "llcm"):
            seen = list(dict.fromkeys(identity for *_, identity in ranking))
            first = seen.index(query.identity) + 1
        metrics = {f"R{k}": float(first <= k) for k in (1, 10, 20)}
        metrics["mAP"] = fmean(n / place for n, place in enumerate(positions, start=1))
        metrics["mINP"] = len(positions) / positions[-1]
        best = sum(1 / log2(1 + n) for n in range(1, len(positions) + 1))
        metrics["nDCG"] = sum(1 / log2(1 + place) for place in positions) / best
        found.append((query.identity, metrics, len(positions) / len(ranking)))
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_definition(layout, ties):
    records = some_records(layout)
    embeddings = some_embeddings(records, ties)
    embedding = dict(zip([record.path for record in records], embeddings.tolist(), strict=True))
    results = evaluate_protocols(protocols_in(layout, records), embeddings, records)
    expected = definition(layout, records)
    assert [result.protocol for result in results] == list(expected)
    for result, trials in zip(results, expected.values(), strict=True):
        by_trial = [slow_queries(layout, queries, gallery, embedding) for queries, gallery in trials]
        assert list(result.metrics) == REPORTED
        for name, spread in result.metrics.items():
            values = [fmean(metrics[name] for _, metrics, _ in found) for found in by_trial]
            assert spread.trials == pytest.approx(values, abs=1e-6)
            assert spread.mean == pytest.approx(fmean(values), abs=1e-6)
            assert spread.std == pytest.approx(stdev(values) if len(values) > 1 else 0, abs=1e-6)
            assert spread.low <= spread.mean <= spread.high
        assert result.chance == pytest.approx(fmean(fmean(chance for *_, chance in found) for found in by_trial))
        assert (result.queries, result.valid, result.gallery_images) == (
            min(len(queries) for queries, _ in trials),
            min(map(len, by_trial)),
            min(len(gallery) for _, gallery in trials),
        )
        assert 0 < result.metrics["R1"].mean < result.metrics["R10"].mean < 1  # it is about something

        asked = Counter(identity for found in by_trial for identity, *_ in found)
        assert dict(zip(result.by_identity.identity, result.by_identity.queries, strict=True)) == asked
        for name in REPORTED:
            sums = Counter()
            for identity, metrics, _ in chain(*by_trial):
                sums[identity] += metrics[name]
            assert result.by_identity.sums[name] == pytest.approx([sums[i] for i in sorted(asked)], abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_are_what_tests_need(layout):
    """Queries that do not count, cameras that lack people, more than ten images of a camera, and fewer."""
    records = some_records(layout)
    counts = Counter((record.identity, record.camera, record.modality) for record in records)
    assert max(counts.values()) > 10 > min(counts.values())
    assert len(counts) < len({r.identity for r in records}) * sum(map(len, CAMERAS[layout].values()))
    results = evaluate_protocols(protocols_in(layout, records), some_embeddings(records, ties=False), records)
    assert any(result.valid < result.queries for result in results)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_over_identities_give_the_metrics(layout):
    records = some_records(layout, seed=1)
    for result in evaluate_protocols(
        protocols_in(layout, records), some_embeddings(records, ties=False, seed=1), records
    ):
        assert sum(result.by_identity.queries) == result.valid * len(result.metrics["R1"].trials)
        for name, sums in result.by_identity.sums.items():
            assert sum(sums) / sum(result.by_identity.queries) == pytest.approx(result.metrics[name].mean)


def test_protocols_together_are_as_each_alone():
    records = some_records("llcm")
    embeddings = some_embeddings(records, ties=False)
    protocols = protocols_in("llcm", records)
    assert evaluate_protocols(protocols, embeddings, records) == [
        evaluate_protocol(protocol, embeddings, records) for protocol in protocols
    ]


def test_trials_with_queries_of_their_own():
    """One trial more of the same queries is not taken for another protocol's."""
    records = some_records("regdb")
    embeddings = some_embeddings(records, ties=False)
    visible, infrared = ([i for i, r in enumerate(records) if r.modality == modality] for modality in Modality)
    trials = [Trial(visible, infrared), Trial(visible[::2], infrared), Trial(visible, infrared[::2])]
    together = evaluate_protocol(Protocol("p", Rules(), "all", trials), embeddings, records)
    alone = [evaluate_protocol(Protocol("p", Rules(), "all", [trial]), embeddings, records) for trial in trials]
    for name, spread in together.metrics.items():
        assert spread.trials == [result.metrics[name].mean for result in alone]
        sums, queries = together.by_identity.sums[name], together.by_identity.queries
        assert spread.mean == pytest.approx(sum(sums) / sum(queries), rel=1e-12)  # trials weigh the same in both
        assert spread.low < spread.mean < spread.high
    assert together.queries == len(visible[::2])
    assert together.gallery_images == len(infrared[::2])


# ---- true sizes, where the metrics can be worked out


def test_regdb_of_its_true_size():
    """206 people; every second one's thermal images look like another's: found in none of 2,060 but the last ten."""
    records = [
        ImageRecord(f"{modality.name}/{identity}/{n}.bmp", identity, int(modality) + 1, modality)
        for modality in Modality
        for identity in range(206)
        for n in range(10)
    ]
    looks = torch.tensor([r.identity + 2 * (r.modality == INFRARED and r.identity % 2) for r in records]) % 206
    results = evaluate_protocols(protocols_in("regdb", records), torch.eye(206)[looks], records)
    assert [result.protocol for result in results] == ["visible to thermal", "thermal to visible"]
    for result in results:
        assert (result.queries, result.valid, result.gallery_images, result.gallery) == (2060, 2060, 2060, "all")
        assert result.chance == pytest.approx(10 / 2060)
        assert len(result.by_identity.identity) == 206
        metrics = {name: spread.mean for name, spread in result.metrics.items()}
        last = fmean(n / (2050 + n) for n in range(1, 11))
        assert metrics == pytest.approx(
            {"R1": 0.5, "R10": 0.5, "R20": 0.5, "mAP": (1 + last) / 2, "mINP": (1 + 10 / 2060) / 2}
        )


def llcm_records(people=351):
    """Everybody in two to four of the cameras, in either spectrum where the camera has it."""
    choose = random.Random(0)
    return [
        ImageRecord(f"{modality.name}/cam{camera}/{identity:04d}/{n}.jpg", identity, camera, modality)
        for identity in range(1, people + 1)
        for camera in choose.sample(range(1, 10), choose.randint(2, 4))
        for modality in Modality
        if (modality, camera) != (INFRARED, 3)
        for n in range(choose.randint(1, 9))
    ]


def test_llcm_galleries_hold_one_image_of_each_person_and_camera():
    records = llcm_records()
    every = {modality: [i for i, r in enumerate(records) if r.modality == modality] for modality in Modality}
    forward, backward, swapped = protocols_in("llcm", records, trials=10)
    for protocol, of_query, of_gallery in ((forward, INFRARED, VISIBLE), (backward, VISIBLE, INFRARED)):
        pairs = sorted({(records[i].identity, records[i].camera) for i in every[of_gallery]})
        assert len(protocol.trials) == 10
        for t, trial in enumerate(protocol.trials):
            assert trial.query == every[of_query]
            assert [(records[i].identity, records[i].camera) for i in trial.gallery] == pairs
            assert [records[i] for i in trial.gallery] == one_of_each(records, of_gallery, range(1, 10), t)
        assert len({tuple(trial.gallery) for trial in protocol.trials}) == 10
    assert [trial.query for trial in swapped.trials] == [trial.gallery for trial in backward.trials]
    assert all(trial.gallery == every[VISIBLE] for trial in swapped.trials)


@pytest.mark.slow
def test_llcm_does_not_find_a_person_in_the_querys_camera():
    """Everybody looks different in every camera and the same in both spectra: nothing is found that counts."""
    records = llcm_records()
    place = {key: i for i, key in enumerate(sorted({(r.identity, r.camera) for r in records}))}
    embeddings = torch.eye(len(place))[torch.tensor([place[r.identity, r.camera] for r in records])]
    for result in evaluate_protocols(protocols_in("llcm", records, trials=2), embeddings, records):
        assert result.metrics["R20"].mean == 0
        assert result.valid > 0.9 * result.queries


# ---- pairs of cameras


@pytest.mark.parametrize("layout", LAYOUTS)
def test_camera_pairs_split_queries_and_galleries(layout):
    records = some_records(layout)
    for protocol in protocols_in(layout, records):
        pairs = camera_pairs(protocol, records)
        asked = sorted({records[i].camera for trial in protocol.trials for i in trial.query})
        answered = sorted({records[i].camera for trial in protocol.trials for i in trial.gallery})
        assert list(pairs) == list(product(asked, answered))
        for (query, gallery), pair in pairs.items():
            assert (pair.rules, pair.gallery, len(pair.trials)) == (
                protocol.rules,
                protocol.gallery,
                len(protocol.trials),
            )
            for alone, trial in zip(pair.trials, protocol.trials, strict=True):
                assert alone.query == [i for i in trial.query if records[i].camera == query]
                assert alone.gallery == [i for i in trial.gallery if records[i].camera == gallery]


@pytest.mark.parametrize("layout", ["sysu", "llcm", "folder"])
def test_metrics_of_camera_pairs_equal_the_definition(layout):
    records = some_records(layout)
    embeddings = some_embeddings(records, ties=False)
    embedding = dict(zip([record.path for record in records], embeddings.tolist(), strict=True))
    for protocol in protocols_in(layout, records):
        trials = definition(layout, records)[protocol.name]
        found = {(p.query, p.gallery): p for p in evaluate_camera_pairs(protocol, embeddings, records)}
        for query, gallery in camera_pairs(protocol, records):
            by_trial = [
                slow_queries(
                    layout,
                    [record for record in queries if record.camera == query],
                    [image for image in images if image.camera == gallery],
                    embedding,
                )
                for queries, images in trials
            ]
            if not by_trial[0]:
                assert (query, gallery) not in found
                continue
            pair = found.pop((query, gallery))
            assert pair.valid == min(map(len, by_trial))
            for name, value in (("R1", pair.R1), ("mAP", pair.mAP)):
                expected = fmean(fmean(metrics[name] for _, metrics, _ in queries) for queries in by_trial)
                assert value == pytest.approx(expected, abs=1e-6)
            assert pair.chance == pytest.approx(fmean(fmean(c for *_, c in queries) for queries in by_trial))
        assert not found


def test_camera_pairs_that_the_protocol_forbids_are_left_out():
    records = some_records("sysu")
    protocol = protocols_in("sysu", records, trials=1)[0]
    embeddings = some_embeddings(records, ties=False)
    with pytest.raises(NothingToScoreError):
        evaluate_protocol(camera_pairs(protocol, records)[3, 2], embeddings, records)
    found = [(pair.query, pair.gallery) for pair in evaluate_camera_pairs(protocol, embeddings, records)]
    assert found == [(3, 1), (3, 4), (3, 5), (6, 1), (6, 2), (6, 4), (6, 5)]


@pytest.mark.parametrize("without", [Trial([1], [2, 4]), Trial([1], []), Trial([], [2, 4])])
def test_a_protocol_is_left_out_where_a_trial_of_it_has_no_answer(caplog, without):
    records = [ImageRecord(f"{i}.jpg", i // 2, 1, INFRARED if i % 2 else VISIBLE) for i in range(6)]
    whole = Trial([1, 3, 5], [0, 2, 4])
    protocols = [Protocol(f"with {len(trials)}", Rules(), "all", trials) for trials in ([whole], [whole, without])]
    assert len(evaluate_protocols(protocols, some_embeddings(records, ties=False), records)) == 1
    assert "with 2 is left out: in 1 of its 2 trials no query has an image of its identity" in caplog.text


def test_a_single_camera_pair_is_none():
    records = some_records("regdb")
    for protocol in protocols_in("regdb", records):
        assert evaluate_camera_pairs(protocol, some_embeddings(records, ties=False), records) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(3))
def test_queries_that_have_an_answer_are_those_that_scoring_counts(layout, seed):
    """Few images of each person, some of them of nobody known, so that many queries find nothing."""
    records = random.Random(seed).sample(some_records(layout, seed), 60)
    records = [replace(r, identity=DISTRACTOR) if r.identity % 5 == 0 else r for r in records]
    for protocol in protocols_in(layout, records):
        result = evaluate_protocol(protocol, some_embeddings(records, ties=True), records)
        assert answerable(protocol, records) == (result.queries, result.valid)
        assert result.valid < result.queries


def test_nobody_has_an_answer_where_all_images_are_of_one_camera():
    records = [ImageRecord(f"{n}.jpg", n // 2, 1, Modality(n % 2)) for n in range(8)]
    assert [answerable(protocol, records) for protocol in protocols_in("folder", records)] == [(4, 0), (4, 0)]
    assert [answerable(protocol, records) for protocol in protocols_in("regdb", records)] == [(4, 4), (4, 4)]


def test_a_distractor_is_a_wrong_answer_and_never_asked_for():
    """One query at 0; a distractor at 1, an image of its person at 2, another distractor at 3, another image at 4."""
    people = [(7, INFRARED, 0), (-1, VISIBLE, 1), (7, VISIBLE, 2), (-1, VISIBLE, 3), (7, VISIBLE, 4), (-1, INFRARED, 9)]
    records = [ImageRecord(f"{at}.jpg", who, int(modality) + 1, modality) for who, modality, at in people]
    embeddings = torch.tensor([[float(at), 0.0] for *_, at in people])
    for layout in ("folder", "regdb"):
        (found,) = [p for p in protocols_in(layout, records) if p.name.endswith("to visible")]
        (trial,) = found.trials
        assert (list(trial.query), sorted(trial.gallery)) == ([0], [1, 2, 3, 4])
        metrics = evaluate_protocol(found, embeddings, records).metrics
        assert metrics["R1"].mean == 0
        assert metrics["mAP"].mean == (1 / 2 + 2 / 4) / 2
        people_alone = [0, 2, 4]
        (without,) = [
            p for p in protocols_in(layout, [records[i] for i in people_alone]) if p.name.endswith("to visible")
        ]
        metrics = evaluate_protocol(without, embeddings[people_alone], [records[i] for i in people_alone]).metrics
        assert metrics["R1"].mean == metrics["mAP"].mean == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_asks_for_distractors(layout):
    records = some_records(layout)
    with_some = [replace(r, identity=DISTRACTOR) if r.identity % 2 else r for r in records]
    for protocol in protocols_in(layout, with_some)[:2]:
        assert DISTRACTOR in {with_some[i].identity for trial in protocol.trials for i in trial.gallery}
        assert DISTRACTOR not in {with_some[i].identity for trial in protocol.trials for i in trial.query}


def test_every_protocol_has_the_rules_of_its_layout():
    for layout in LAYOUTS:
        assert {p.rules for p in protocols_in(layout, some_records(layout))} == {find_layout(layout).rules}
    assert len({find_layout(layout).rules for layout in LAYOUTS}) == 4


# ---- a further metric


def discounted_gain(ranking):
    """nDCG: sum of 1 / log2(1 + position) over the matches, divided by what it is if all of them stand first."""
    gain, best = 0.0, 0.0
    for n in range(len(ranking.positions)):
        gain += 1 / log2(1 + ranking.positions[n])
        best += 1 / log2(2 + n)
    return gain / best


def test_a_metric_is_one_function_and_one_line(monkeypatch):
    records = some_records("llcm")
    embeddings = some_embeddings(records, ties=True)
    embedding = dict(zip([record.path for record in records], embeddings.tolist(), strict=True))
    protocol = protocols_in("llcm", records)[0]
    before = evaluate_protocol(protocol, embeddings, records)

    monkeypatch.setitem(METRICS, "nDCG", discounted_gain)
    after = evaluate_protocol(protocol, embeddings, records)
    assert list(after.metrics) == list(after.by_identity.sums) == [*REPORTED, "nDCG"]
    assert {name: after.metrics[name] for name in REPORTED} == before.metrics
    found = [
        fmean(metrics["nDCG"] for _, metrics, _ in slow_queries("llcm", queries, gallery, embedding))
        for queries, gallery in definition("llcm", records)[protocol.name]
    ]
    spread = after.metrics["nDCG"]
    assert spread.trials == pytest.approx(found)
    assert 0 < spread.low < spread.mean < spread.high < 1
