"""Batches of N identities x (K visible + K infrared) images (Section 4.2)."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from csvi.data.records import ImageRecord, Modality
from csvi.data.sampler import CrossModalitySampler, Sample
from csvi.data.sysu import images_per_camera
from csvi.errors import CsviError


def records(counts):
    """(visible, infrared) images of identities 100, 107, ...; records of all identities mixed."""
    found = []
    for n, (visible, infrared) in enumerate(counts):
        for modality, images in ((Modality.INFRARED, infrared), (Modality.VISIBLE, visible)):
            found += [ImageRecord(f"{n}/{modality}/{i}.jpg", 100 + 7 * n, 1, modality) for i in range(images)]
    return found[::2] + found[1::2]


COUNTS = [(6, 3), (5, 5), (4, 2), (9, 4), (1, 8), (7, 7), (3, 3), (12, 5), (6, 6), (5, 4), (8, 3)]  # 66 and 50
IMAGES = records(COUNTS)


def images(batch):
    return [IMAGES[sample.image] for sample in batch]


@pytest.fixture
def sampler():
    return CrossModalitySampler(IMAGES, identities=4, images=3, seed=5)


def test_visible_images_come_first_each_modality_grouped_by_identity(sampler):
    for batch in sampler:
        drawn = images(batch)
        assert len(drawn) == 2 * 4 * 3
        assert [record.modality for record in drawn] == 12 * [Modality.VISIBLE] + 12 * [Modality.INFRARED]
        for n in range(0, 12, 3):
            assert len({record.identity for record in drawn[n : n + 3] + drawn[12 + n : 12 + n + 3]}) == 1
        assert len({record.identity for record in drawn}) == 4


def test_an_epoch_draws_as_many_images_as_the_larger_modality_has(sampler):
    assert sum(visible for visible, _ in COUNTS) == 66 > sum(infrared for _, infrared in COUNTS)
    assert len(sampler) == len(list(sampler)) == 6  # of 12 visible images, 66 / 12 rounded up
    exact = CrossModalitySampler(records([(12, 3)] * 4), identities=4, images=3)
    assert len(exact) == len(list(exact)) == 4
    infrared = CrossModalitySampler(records([(3, 12)] * 4), identities=4, images=3)
    assert len(infrared) == 4


@pytest.mark.parametrize("identities", [2, 4, 7, 11])
def test_every_identity_comes_up_equally_often(identities):
    sampler, seen = CrossModalitySampler(IMAGES, identities, images=1), Counter()
    sampler.batches = 40
    for batch in sampler:
        chosen = {record.identity for record in images(batch)}
        assert len(chosen) == identities
        seen.update(chosen)
        counts = [seen[100 + 7 * n] for n in range(len(COUNTS))]
        assert max(counts) - min(counts) <= 1


def test_an_image_repeats_only_where_there_are_fewer_than_k(sampler):
    repeated = set()
    for epoch in range(20):
        sampler.start(epoch)
        for batch in sampler:
            drawn = images(batch)
            for n in range(0, 24, 3):
                identity, modality = drawn[n].identity, drawn[n].modality
                available = COUNTS[(identity - 100) // 7][modality]
                assert len({record.path for record in drawn[n : n + 3]}) == min(3, available)
                if available < 3:
                    repeated.add((identity, modality))
    assert repeated == {(100 + 7 * 4, Modality.VISIBLE), (100 + 7 * 2, Modality.INFRARED)}


def test_all_images_come_up(sampler):
    seen = set()
    for epoch in range(30):
        sampler.start(epoch)
        seen.update(sample.image for batch in sampler for sample in batch)
    assert seen == set(range(len(IMAGES)))


def test_identities_of_one_modality_are_left_out_and_counted_in_the_log(caplog):
    counts = [(3, 3), (0, 5), (4, 0), (2, 2), (0, 1)]
    sampler = CrossModalitySampler(records(counts), identities=2, images=2)
    assert "3 of 5 identities have images of one modality only and are left out" in caplog.text
    assert len(sampler) == 2  # the 5 visible images of two identities, four a batch; those left out do not count
    drawn = {records(counts)[sample.image].identity for batch in sampler for sample in batch}
    assert drawn == {100, 100 + 7 * 3}


def test_nothing_is_logged_where_all_identities_have_both(caplog):
    CrossModalitySampler(IMAGES, identities=2)
    assert not caplog.records


@pytest.mark.parametrize("identities", [12, 100])
def test_too_few_identities(identities):
    with pytest.raises(CsviError, match=rf"needs {identities} identities .* there are 11: lower --data\.identities"):
        CrossModalitySampler(IMAGES, identities)


def test_no_image_at_all():
    with pytest.raises(CsviError, match="there are 0"):
        CrossModalitySampler([], identities=8)


def test_same_seed_and_epoch_same_batches(sampler):
    again = CrossModalitySampler(IMAGES, identities=4, images=3, seed=5)
    for epoch in (0, 3):
        sampler.start(epoch)
        again.start(epoch)
        assert list(sampler) == list(again)


def test_other_seeds_and_epochs_have_other_batches_and_other_augmentation(sampler):
    first = list(sampler)
    sampler.start(epoch=1)
    second = list(sampler)
    third = list(CrossModalitySampler(IMAGES, identities=4, images=3, seed=6))
    assert first != second != third != first
    seeds = {sample.seed for batches in (first, second, third) for batch in batches for sample in batch}
    assert len(seeds) == 3 * 6 * 24
    assert all(isinstance(sample, Sample) for sample in first[0])


@pytest.mark.parametrize("step", range(7))
def test_start_goes_on_from_any_step(sampler, step):
    sampler.start(epoch=2)
    whole = list(sampler)
    sampler.start(epoch=2, step=step)
    assert len(sampler) == 6 - step
    assert list(sampler) == whole[step:]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_divide_the_batch_that_one_process_with_all_identities_draws(world_size, replacement):
    ranks = [CrossModalitySampler(IMAGES, 2, 3, 5, r, world_size, replacement=replacement) for r in range(world_size)]
    alone = CrossModalitySampler(IMAGES, 2 * world_size, 3, 5, replacement=replacement)
    assert {len(sampler) for sampler in ranks} == {len(alone)}
    for step, (whole, *shares) in enumerate(zip(alone, *ranks, strict=True)):
        for share in shares:
            assert [IMAGES[sample.image].modality for sample in share] == [0] * 6 + [1] * 6
        for modality, images in ((0, 6), (1, 6)):
            begin = modality * images
            together = [sample for share in shares for sample in share[begin : begin + images]]
            assert together == whole[begin * world_size : (begin + images) * world_size]
        people = [{IMAGES[sample.image].identity for sample in share} for share in shares]
        assert len(set.union(*people)) == sum(map(len, people)) == 2 * world_size  # no identity on two ranks
        assert ranks[0].images_of(0, step) == [sample.image for sample in whole]


def test_more_identities_than_there_are_cannot_be_divided():
    advice = r"a batch of 30 processes needs 60 identities with .* \(--train\.global_identities, where it is set"
    with pytest.raises(CsviError, match=advice):
        CrossModalitySampler(IMAGES, 2, 3, 5, 0, world_size=30)


def test_ranks_go_on_from_any_step():
    for rank in (0, 1):
        sampler = CrossModalitySampler(IMAGES, 4, 3, 5, rank, world_size=2)
        whole = list(sampler)
        sampler.start(epoch=0, step=2)
        assert list(sampler) == whole[2:]


def test_iteration_can_be_broken_off_and_begun_again(sampler):
    first = list(islice(sampler, 2))
    assert list(sampler)[:2] == first


GOLDEN = json.loads(Path(__file__).with_name("goldens_of_the_field.json").read_text())["samplers"]


@pytest.fixture(scope="module")
def benchmarks():
    """Records of the training images of SYSU-MM01, as many as there are of each identity, and of a fold of RegDB."""
    rows = [row for row in images_per_camera() if row["split"] != "test"]
    counts = [
        [sum(int(row[f"cam{camera}"]) for camera in cameras) for cameras in ((1, 2, 4, 5), (3, 6))] for row in rows
    ]
    assert [len(rows), *(sum(images) for images in zip(*counts, strict=True))] == GOLDEN["sysu_ids_rgb_ir"]
    return {"sysu": records(counts), "regdb": records([(10, 10)] * 206)}


def drawn_again(groups):
    """Share of these groups of images in which one comes up twice."""
    return sum(len(set(group)) < len(group) for group in groups) / len(groups)


SHARES = "share_of_groups_with_a_repeated_rgb_image", "share_ir"


@pytest.mark.parametrize(
    ("golden", "identities", "images", "shares"),
    [
        ("AGW_8x4_sysu", 8, 4, SHARES),
        ("HcTri_6x8_sysu", 6, 8, ("share_of_rgb_groups_with_a_repeat",)),
        ("DEEN_6x4_sysu", 6, 4, ()),
        ("AGW_8x4_regdb", 8, 4, ("share_of_groups_with_a_repeated_image",)),
    ],
)
def test_with_replacement_batches_and_repeats_are_as_many_as_the_public_code_draws(
    benchmarks, golden, identities, images, shares
):
    sampler = CrossModalitySampler(benchmarks[golden.split("_")[2]], identities, images, seed=1, replacement=True)
    assert len(sampler) == GOLDEN[golden]["batches_yielded"]
    if not shares:
        return
    rows = [[sample.image for sample in batch] for batch in sampler]
    assert len(rows) == len(sampler)
    for modality, share in enumerate(GOLDEN[golden][name] for name in shares):
        starts = range(modality * identities * images, (modality + 1) * identities * images, images)
        groups = [row[start : start + images] for row in rows for start in starts]
        deviation = (2 * share * (1 - share) / len(groups)) ** 0.5  # theirs varies as ours does
        assert abs(drawn_again(groups) - share) < 4 * deviation


@pytest.fixture
def replacing():
    return CrossModalitySampler(IMAGES, identities=4, images=3, seed=5, replacement=True)


def test_with_replacement_a_batch_has_n_identities_whatever_the_others_have(replacing):
    seen, in_a_row = Counter(), 0
    replacing.batches = 500
    last = set()
    for batch in replacing:
        drawn = images(batch)
        assert [record.modality for record in drawn] == 12 * [Modality.VISIBLE] + 12 * [Modality.INFRARED]
        for n in range(0, 12, 3):
            assert len({record.identity for record in drawn[n : n + 3] + drawn[12 + n : 12 + n + 3]}) == 1
        chosen = {record.identity for record in drawn}
        assert len(chosen) == 4
        seen.update(chosen)
        in_a_row += len(chosen & last)
        last = chosen
    share = 4 / len(COUNTS)
    deviation = (500 * share * (1 - share)) ** 0.5
    assert all(abs(seen[100 + 7 * n] - 500 * share) < 4 * deviation for n in range(len(COUNTS)))
    assert max(seen.values()) - min(seen.values()) > 1  # not in turn
    assert abs(in_a_row / 499 - 4 * share) < 4 * (4 * share / 499) ** 0.5


def test_with_replacement_there_is_one_batch_more_than_fit(replacing):
    assert len(replacing) == len(list(replacing)) == 66 // 12 + 1
    exact = CrossModalitySampler(records([(12, 3)] * 4), identities=4, images=3, replacement=True)
    assert len(exact) == len(list(exact)) == 4 + 1
    ranks = [CrossModalitySampler(IMAGES, 4, 3, 5, rank, 2, replacement=True) for rank in (0, 1)]
    assert [len(sampler) for sampler in ranks] == [66 // 24 + 1] * 2


@pytest.mark.parametrize("step", [0, 1, 5, 6])
def test_with_replacement_start_goes_on_from_any_step(replacing, step):
    replacing.start(epoch=2)
    whole = list(replacing)
    replacing.start(epoch=2, step=step)
    assert len(replacing) == 6 - step
    assert list(replacing) == whole[step:]
    replacing.start(epoch=3)
    assert list(replacing) != whole
