"""SYSU-MM01's protocol on its true counts: galleries picked by hand-checked seeds, and the whole way to the metrics;
what the other layouts draw, and what none of them can. Their metrics are tested in `evaluate/test_scoring.py`."""

import dataclasses
import json
import pickle
import random
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import scipy.io
import torch

from csvi.config import DataConfig
from csvi.data import find_layout, protocols_of, read_benchmark
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.data.sysu import MODALITIES, PERMUTATIONS, Sysu, images_per_camera
from csvi.errors import CsviError
from csvi.evaluate import evaluate_protocol, evaluate_protocols, score

NOWHERE = Path("/nowhere")
SETTINGS = ["all-search single-shot", "all-search multi-shot", "indoor-search single-shot", "indoor-search multi-shot"]


def sysu_protocols(records, draw="seeded", root=NOWHERE, trials=10):
    return Sysu().protocols(records, draw, root, trials)


def protocols_in(layout, records, trials=10):
    return find_layout(layout).protocols(records, find_layout(layout).draws[0], NOWHERE, trials)


def records_of(split):
    """The split as SYSU-MM01 has it: files 0001…n of every identity and camera."""
    rows = [row for row in images_per_camera() if row["split"] == split]
    return [
        ImageRecord(f"cam{camera}/{int(row['id']):04d}/{n:04d}.jpg", int(row["id"]), camera, modality)
        for camera, modality in MODALITIES.items()
        for row in rows
        for n in range(1, int(row[f"cam{camera}"]) + 1)
    ]


@pytest.fixture(scope="module")
def sysu_test():
    return records_of("test")


def picks(gallery, records, identity):
    """Camera → file numbers."""
    found = {}
    for i in gallery:
        if records[i].identity == identity:
            found.setdefault(records[i].camera, []).append(int(records[i].path[-8:-4]))
    return found


def few(*counts, identity=1):
    """Records of one identity with so many images in cameras 1, 2, …"""
    return [
        ImageRecord(f"cam{camera}/{identity:04d}/{n:04d}.jpg", identity, camera, MODALITIES[camera])
        for camera, count in enumerate(counts, start=1)
        for n in range(1, count + 1)
    ]


def write_permutations(root, records, rows=None):
    """Write rand_perm_cam.mat of these records in the authors' nesting, ten random rows a camera and identity.

    `rows`: (camera, identity, trial) → the first number of that row.
    """
    permute = np.random.default_rng(0).permutation
    count = {}
    for record in records:
        count[record.camera, record.identity] = count.get((record.camera, record.identity), 0) + 1
    cameras = np.empty((6, 1), object)
    for camera in range(1, 7):
        cameras[camera - 1, 0] = np.empty((max(r.identity for r in records), 1), object)
        for identity in range(1, len(cameras[camera - 1, 0]) + 1):
            n = count.get((camera, identity), 0)
            table = np.array([permute(n) + 1 for _ in range(10)], np.uint8).reshape(10, n)
            for trial in range(10):
                if first := (rows or {}).get((camera, identity, trial)):
                    row = table[trial]
                    row[row == first], row[0] = row[0], first
            cameras[camera - 1, 0][identity - 1, 0] = table
    file = root / PERMUTATIONS
    file.parent.mkdir()
    scipy.io.savemat(file, {"rand_perm_cam": cameras})
    return file


@pytest.mark.parametrize(
    ("split", "identities", "visible", "infrared"),
    [("train", 296, 20284, 9929), ("val", 99, 1974, 1980), ("test", 96, 6775, 3803)],
)
def test_true_counts(split, identities, visible, infrared):
    records = records_of(split)
    assert len({record.identity for record in records}) == identities
    assert sum(record.modality == 0 for record in records) == visible
    assert sum(record.modality == 1 for record in records) == infrared


def test_sizes_of_the_four_settings(sysu_test):
    protocols = sysu_protocols(sysu_test)
    assert [protocol.name for protocol in protocols] == SETTINGS
    for protocol, size, people in zip(protocols, (301, 3010, 112, 1120), (96, 96, 56, 56), strict=True):
        assert {len(trial.query) for trial in protocol.trials} == {3803}
        assert len(protocol.trials) == 10
        assert {len(set(trial.gallery)) for trial in protocol.trials} == {size}
        assert {len({sysu_test[i].identity for i in trial.gallery}) for trial in protocol.trials} == {people}


def test_seeded_single_shot_picks_what_public_code_picks(sysu_test):
    galleries = [trial.gallery for trial in sysu_protocols(sysu_test)[0].trials]
    of_6 = [picks(galleries[trial], sysu_test, 6) for trial in range(3)]
    assert of_6 == [
        {1: [25], 2: [25], 4: [14], 5: [2]},
        {1: [9], 2: [19], 4: [3], 5: [9]},
        {1: [4], 2: [3], 4: [3], 5: [12]},
    ]
    of_10 = [picks(galleries[trial], sysu_test, 10) for trial in range(3)]
    assert [(p[1], p[2]) for p in of_10] == [([17], [17]), ([8], [16]), ([11], [24])]


def test_seeded_multi_shot_stays_as_it_is(sysu_test):
    """No public numbers exist, as public code does not seed it; ours may not change between versions."""
    galleries = [trial.gallery for trial in sysu_protocols(sysu_test)[1].trials]
    expected = np.random.RandomState(3).choice(42, 10, replace=False) + 1
    assert picks(galleries[3], sysu_test, 6)[1] == expected.tolist()
    assert picks(galleries[0], sysu_test, 6)[1] == [31, 37, 28, 5, 11, 26, 29, 12, 38, 32]


def test_order_of_records_does_not_matter(sysu_test):
    def paths(records):
        return [[[records[i].path for i in t.gallery] for t in p.trials] for p in sysu_protocols(records, trials=2)]

    assert paths(sysu_test) == paths(sysu_test[::-1])


def test_official_galleries(sysu_test, tmp_path):
    first = {
        **{(camera, 6, 0): n for camera, n in ((1, 5), (2, 7), (4, 10), (5, 15))},
        **{(camera, 10, 0): n for camera, n in ((1, 18), (2, 11))},
        **{(camera, 6, 1): n for camera, n in ((1, 17), (2, 10), (4, 20), (5, 1))},
        **{(camera, 6, 2): n for camera, n in ((1, 38), (2, 18), (4, 4), (5, 8))},
    }
    mat = write_permutations(tmp_path, sysu_test, first)
    single, multi, indoor, _ = sysu_protocols(sysu_test, "official", tmp_path)
    assert {protocol.gallery for protocol in (single, multi, indoor)} == {"official"}
    assert picks(single.trials[0].gallery, sysu_test, 6) == {1: [5], 2: [7], 4: [10], 5: [15]}
    assert picks(indoor.trials[0].gallery, sysu_test, 6) == {1: [5], 2: [7]}
    assert [picks(single.trials[0].gallery, sysu_test, 10)[camera] for camera in (1, 2)] == [[18], [11]]
    assert picks(single.trials[1].gallery, sysu_test, 6) == {1: [17], 2: [10], 4: [20], 5: [1]}
    assert picks(single.trials[2].gallery, sysu_test, 6) == {1: [38], 2: [18], 4: [4], 5: [8]}
    assert [len(protocol.trials[9].gallery) for protocol in (single, multi, indoor)] == [301, 3010, 112]
    row = scipy.io.loadmat(mat)["rand_perm_cam"][3, 0][5, 0][7]  # camera 4, identity 6, trial 8
    assert picks(multi.trials[7].gallery, sysu_test, 6)[4] == row[:10].tolist()


def test_fewer_images_than_shots():
    records = few(3, 12, 1)
    multi = sysu_protocols(records, trials=3)[1]
    for trial in multi.trials:
        found = picks(trial.gallery, records, 1)
        assert sorted(found[1]) == [1, 2, 3]
        assert len(set(found[2])) == 10


def test_validation_identities_have_no_indoor_gallery():
    records = records_of("val")
    identity = torch.tensor([record.identity for record in records])
    protocols = sysu_protocols(records, trials=1)
    assert [protocol.name for protocol in protocols] == SETTINGS[:2]
    result = evaluate_protocol(protocols[0], torch.eye(534)[identity], records)
    assert (result.queries, result.valid, result.gallery_images) == (1980, 1980, 195)
    assert result.metrics["R1"].mean == result.metrics["mINP"].mean == 1


def test_metrics_equal_the_score_of_each_trial(sysu_test):
    """The whole way on the true counts, against distances in float64 and `score`, trial by trial."""
    normal = np.random.default_rng(0).normal
    identity, camera, modality = np.array([(r.identity, r.camera, r.modality) for r in sysu_test]).T
    embeddings = normal(size=(identity.max() + 1, 16))[identity] + 2 * normal(size=(len(identity), 16))
    protocols = sysu_protocols(sysu_test, trials=2)
    results = evaluate_protocols(protocols, torch.tensor(embeddings), sysu_test)
    assert [result.protocol for result in results] == SETTINGS
    assert [(result.queries, result.valid) for result in results] == [(3803, 3803)] * 2 + [(3803, 2208)] * 2
    assert [result.gallery_images for result in results] == [301, 3010, 112, 1120]
    query = np.flatnonzero(modality == 1)
    for protocol, result in zip(protocols, results, strict=True):
        scores = []
        for gallery in (trial.gallery for trial in protocol.trials):
            distance = -2 * embeddings[query] @ embeddings[gallery].T + (embeddings[gallery] ** 2).sum(1)
            labels = identity[query], identity[gallery], camera[query], camera[gallery]
            scores.append(score(distance, *labels, rules=Sysu.rules))
        for name, values in {
            "R1": [float(s.cmc[0]) for s in scores],
            "R10": [float(s.cmc[9]) for s in scores],
            "R20": [float(s.cmc[19]) for s in scores],
            "mAP": [s.metrics["mAP"] for s in scores],
            "mINP": [s.metrics["mINP"] for s in scores],
        }.items():
            assert result.metrics[name].trials == pytest.approx(values, abs=1e-9)
            assert result.metrics[name].mean == pytest.approx(mean(values))
            assert result.metrics[name].std == pytest.approx(stdev(values))
    assert json.loads(json.dumps(dataclasses.asdict(results[0])))["gallery"] == "seeded"


def test_collapsed_embeddings_are_scored_as_the_worst():
    records = [r for identity in range(1, 30) for r in few(2, 2, 2, 2, 2, 2, identity=identity)]
    protocol = sysu_protocols(records, trials=1)[0]
    result = evaluate_protocol(protocol, torch.randn(1, 512).expand(len(records), -1), records)
    assert (result.metrics["R1"].mean, result.metrics["R20"].mean) == (0, 0)
    assert result.metrics["R1"].std == 0


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(5, 4), r"shape \(5, 4\): they must be \(6, dimensions\)"),
        (torch.zeros(6), r"shape \(6,\)"),
        (torch.full((6, 4), float("nan")), "has the model diverged"),
        (torch.zeros(6, 4, dtype=torch.int64), "other than floats"),
    ],
)
def test_bad_embeddings(embeddings, message):
    records = few(1, 1, 1, 1, 1, 1)
    with pytest.raises(CsviError, match=message):
        evaluate_protocol(sysu_protocols(records, trials=1)[0], embeddings, records)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (few(2, 2), {}, "no infrared images"),
        (few(0, 0, 2), {}, "no visible images"),
        (few(2, 2, 2), {"gallery": "oficial"}, "are seeded or official, not oficial"),
        (few(2, 2, 2), {"gallery": "official"}, "no /nowhere/exp/rand_perm_cam.mat: copy it from SYSU-MM01"),
    ],
)
def test_bad_galleries(records, options, message):
    with pytest.raises(CsviError, match=message):
        protocols_of(Benchmark("Mine", NOWHERE, [], [], records, "sysu"), **options)


def test_bad_permutations(tmp_path):
    records = few(5, 4, 3)
    mat = write_permutations(tmp_path, records)
    with pytest.raises(CsviError, match="no permutations of the 6 images of cam1/0001"):
        sysu_protocols(few(6, 4, 3), "official", tmp_path)
    with pytest.raises(CsviError, match="nothing of identity 2 in cam1"):
        sysu_protocols([*records, *few(1, identity=2)], "official", tmp_path)
    with pytest.raises(CsviError, match="10 official trials, not 11"):
        sysu_protocols(records, "official", tmp_path, trials=11)
    scipy.io.savemat(tmp_path / "other.mat", {"perm": np.zeros(3)})
    other = (tmp_path / "other.mat").read_bytes()
    for content in (b"", b"not a mat file" * 20, mat.read_bytes()[:200], other):
        mat.write_bytes(content)
        with pytest.raises(CsviError, match="cannot read rand_perm_cam in"):
            sysu_protocols(records, "official", tmp_path)


def test_a_benchmark_is_tested_under_the_protocols_of_its_layout(sysu_root):
    benchmark = read_benchmark(DataConfig(root=str(sysu_root)))
    assert protocols_of(benchmark) == sysu_protocols(benchmark.test)
    assert protocols_of(benchmark, "val", trials=2) == sysu_protocols(benchmark.val, trials=2)
    with pytest.raises(CsviError, match="rand_perm_cam"):
        protocols_of(benchmark, gallery="official")


def both_spectra(visible, infrared):
    """Images of people 1 and 2 in these cameras, three each."""
    return [
        ImageRecord(f"{modality.name}/cam{camera}/{identity:04d}/{n}.jpg", identity, camera, modality)
        for modality, cameras in zip(Modality, (visible, infrared), strict=True)
        for identity in (1, 2)
        for camera in cameras
        for n in (1, 2, 3)
    ]


SPECTRA = both_spectra((1, 2, 3), (1, 2))


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("regdb", ["visible to thermal", "thermal to visible"]),
        ("folder", ["infrared to visible", "visible to infrared"]),
    ],
)
def test_all_images_of_a_spectrum_against_all_of_the_other(layout, names):
    protocols = protocols_in(layout, SPECTRA)
    visible, infrared = list(range(18)), list(range(18, 30))
    directions = {"visible": (visible, infrared), "infrared": (infrared, visible), "thermal": (infrared, visible)}
    assert [protocol.name for protocol in protocols] == names
    for protocol in protocols:
        assert [(t.query, t.gallery) for t in protocol.trials] == [directions[protocol.name.split()[0]]]
        assert protocol.gallery == "all"


def test_llcm_draws_with_the_number_of_the_trial():
    """`random.seed(t)`, then a choice for each identity and in it each camera, in ascending order."""
    random.seed(4)
    expected = [random.choice((1, 2, 3)) for _ in range(6)]
    trial = protocols_in("llcm", SPECTRA, trials=5)[0].trials[4]
    drawn = [SPECTRA[i] for i in trial.gallery]
    assert [int(record.path[-5]) for record in drawn] == expected
    assert [(r.identity, r.camera) for r in drawn] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert trial.query == list(range(18, 30))


def test_llcm_swapped_asks_with_the_images_that_the_other_direction_searches():
    forward, backward, swapped = protocols_in("llcm", SPECTRA)
    assert [p.name for p in (forward, backward, swapped)] == [
        "infrared to visible",
        "visible to infrared",
        "llcm-swapped",
    ]
    assert [len(p.trials) for p in (forward, backward, swapped)] == [10] * 3
    assert {len(trial.gallery) for trial in backward.trials} == {4}  # of two cameras
    for asked, searched in zip(swapped.trials, backward.trials, strict=True):
        assert asked.query == searched.gallery
        assert asked.gallery == searched.query == list(range(18))


def test_drawing_leaves_the_global_generators_alone():
    def state():
        return pickle.dumps((random.getstate(), np.random.get_state()))  # noqa: NPY002

    before = state()
    protocols_in("llcm", SPECTRA)
    sysu_protocols(few(12, 12, 12))
    assert state() == before


@pytest.mark.parametrize("layout", ["llcm", "regdb", "folder"])
def test_order_of_records_does_not_matter_to_other_protocols(layout):
    def paths(records):
        """RegDB and folders take all images, in whichever order."""
        return [
            [[sorted(records[i].path for i in part) for part in (t.query, t.gallery)] for t in p.trials]
            for p in protocols_in(layout, records)
        ]

    assert paths(SPECTRA) == paths(SPECTRA[::-1])


@pytest.mark.parametrize("layout", ["regdb", "llcm", "folder"])
@pytest.mark.parametrize(("cameras", "missing"), [(((1, 2), ()), "infrared"), (((), (1, 2)), "visible")])
def test_a_search_across_spectra_needs_both(layout, cameras, missing):
    with pytest.raises(CsviError, match=f"no {missing} images: "):
        protocols_in(layout, both_spectra(*cameras))


@pytest.mark.parametrize(("layout", "draws"), [("regdb", "all"), ("llcm", "seeded"), ("folder", "all")])
def test_protocols_of_the_other_layouts(layout, draws):
    benchmark = Benchmark("Mine", NOWHERE, [], [], SPECTRA, layout)
    assert protocols_of(benchmark) == protocols_of(benchmark, gallery=draws) == protocols_in(layout, SPECTRA)
    assert protocols_of(benchmark, trials=2) == protocols_in(layout, SPECTRA, 2)
    for other in {"seeded", "official", "all"} - {draws}:
        with pytest.raises(CsviError, match=f"the galleries of Mine are {draws}, not {other}"):
            protocols_of(benchmark, gallery=other)
    with pytest.raises(CsviError, match=r"no (visible|infrared) images"):
        protocols_of(benchmark, "val")


def test_sysu_takes_no_gallery_of_all_images(sysu_root):
    with pytest.raises(CsviError, match="are seeded or official, not all"):
        protocols_of(read_benchmark(DataConfig(root=str(sysu_root))), gallery="all")


def test_folders_without_camera_names_lose_nothing():
    """1 for visible and 2 for infrared: nobody's camera is the query's."""
    records = both_spectra((1,), (2,))
    for result in evaluate_protocols(protocols_in("folder", records), torch.randn(len(records), 4), records):
        assert (result.queries, result.valid, result.gallery_images) == (6, 6, 6)
        assert result.chance == pytest.approx(1 / 2)


def test_folders_do_not_find_a_person_in_the_querys_camera():
    """Of three visible cameras a query of camera 1 or 2 searches two for its person: 6 of 15 images, not 9 of 18."""
    result = evaluate_protocol(protocols_in("folder", SPECTRA)[0], torch.randn(len(SPECTRA), 4), SPECTRA)
    assert (result.valid, result.chance) == (12, pytest.approx(6 / 15))
