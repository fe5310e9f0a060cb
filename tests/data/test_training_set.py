"""Which images are trained on, and the only place where classes get their numbers."""

import dataclasses
import hashlib
import shutil

import pytest
from PIL import Image

from csvi.data import Modality, read_benchmark
from csvi.data import training_set as module
from csvi.data.training_set import TrainingSet
from csvi.data.views import standard_views
from csvi.errors import CsviError


@pytest.fixture
def benchmark(config):
    return read_benchmark(config.data)


def open_set(config, benchmark, records=None, masks=True):
    if records is not None:
        benchmark = dataclasses.replace(benchmark, train=list(records))
    training_set = TrainingSet(benchmark, config.data, masks)
    return training_set, *training_set.loader(standard_views(config.data), seed=0)


def labels_in(loader):
    return {int(label) for batch in loader for label in batch.identity}


def without(benchmark, identity, modality):
    return [record for record in benchmark.train if (record.identity, record.modality) != (identity, modality)]


def test_labels_are_those_of_the_identities_with_both_modalities(config, benchmark):
    config.data.identities = 7
    training_set, loader, _ = open_set(config, benchmark, without(benchmark, 3, Modality.INFRARED))
    assert training_set.identities == [1, 2, 4, 5, 6, 7, 8]
    assert training_set.labels == {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6}
    assert labels_in(loader) == set(range(7))


@pytest.mark.parametrize("masks", [True, False])
def test_an_identity_that_skipped_images_leave_with_one_modality_has_no_number(config, benchmark, tmp_path, masks):
    config.data.cache, config.data.on_error, config.data.identities = str(tmp_path), "skip", 7
    broken = [
        dataclasses.replace(record, path=f"gone/{record.path}")
        if (record.identity, record.modality) == (3, Modality.INFRARED)
        else record
        for record in benchmark.train
    ]
    training_set, loader, _ = open_set(config, benchmark, broken, masks)
    infrared = [i for i, record in enumerate(broken) if record.path.startswith("gone/")]
    assert list(training_set.skipped) == infrared
    assert len(infrared) == 4
    assert training_set.identities == [1, 2, 4, 5, 6, 7, 8]
    assert labels_in(loader) == set(range(7))
    assert {record.identity for record in training_set.used} == set(range(1, 9))  # as before: read, but never drawn
    assert len(training_set.used) == len(broken) - 4


def test_more_identities_than_there_are_is_an_error_of_the_loader_alone(config, benchmark):
    config.data.identities = 8
    training_set = TrainingSet(
        dataclasses.replace(benchmark, train=without(benchmark, 3, Modality.INFRARED)), config.data, masks=False
    )
    assert len(training_set.identities) == 7
    with pytest.raises(CsviError, match=r"a batch needs 8 identities .* there are 7: lower --data\.identities"):
        training_set.loader(standard_views(config.data), seed=0)


def test_the_loader_and_the_numbers_agree(config, benchmark):
    training_set, loader, sampler = open_set(config, benchmark)
    assert [training_set.identities.index(i) for i in training_set.identities] == list(training_set.labels.values())
    for samples, batch in zip(list(sampler), loader, strict=True):
        identities = [training_set.records[sample.image].identity for sample in samples]
        assert [training_set.labels[identity] for identity in identities] == batch.identity.tolist()


def test_images_as_they_are_with_labels_and_masks(config, benchmark):
    config.data.identities = 7
    training_set, _, _ = open_set(config, benchmark, without(benchmark, 3, Modality.INFRARED))
    index = range(len(training_set.records))
    batch = training_set.images[index]
    records = training_set.records
    assert batch.identity.tolist() == [training_set.labels.get(record.identity, -1) for record in records]
    assert batch.modality.tolist() == [record.modality for record in records]
    assert batch.view is None
    assert batch.image.shape == (len(records), 3, 48, 24)
    assert batch.mask.shape == (len(records), 1, 48, 24)
    assert -1 in batch.identity


@pytest.mark.parametrize("train_on", ["train", "train+val"])
def test_the_identities_to_train_on(config, benchmark, train_on):
    config.data.train_on = train_on
    training_set, _, _ = open_set(config, benchmark, masks=False)
    assert training_set.records == benchmark.train + (benchmark.val if train_on == "train+val" else [])
    assert training_set.used == training_set.records
    assert training_set.skipped == {}
    assert len(training_set.identities) == (12 if train_on == "train+val" else 8)


def test_the_digest_is_of_the_used_images(config, benchmark, tmp_path):
    def digest_of(records):
        lines = "".join(f"{record.path}\t{record.identity}\t{int(record.modality)}\n" for record in records)
        return hashlib.sha256(lines.encode()).hexdigest()

    config.data.cache, config.data.on_error = str(tmp_path), "skip"
    assert open_set(config, benchmark)[0].digest == digest_of(benchmark.train)
    records = list(benchmark.train)
    records[5] = dataclasses.replace(records[5], path="cam1/0001/gone.jpg")
    assert open_set(config, benchmark, records)[0].digest == digest_of(records[:5] + records[6:])


def test_masks_that_nobody_asks_for_are_not_even_decoded(config, benchmark, monkeypatch):
    monkeypatch.delattr(module, "cached_masks")
    _, loader, _ = open_set(config, benchmark, masks=False)
    assert next(iter(loader)).mask is None


def test_missing_masks_are_said_before_anything_is_decoded(config, benchmark, monkeypatch):
    monkeypatch.delattr(module, "cached_images")
    records = [dataclasses.replace(record, mask=None) for record in benchmark.train]
    some = records[:3] + benchmark.train[3:]
    count = len(records)
    for given, on_error, missing in ((records, "stop", count), (records, "skip", count), (some, "stop", 3)):
        config.data.without_mask = "error" if given is some else "train"
        config.data.on_error = on_error
        with pytest.raises(CsviError) as caught:
            open_set(config, benchmark, given)
        without = "--data.without_mask train takes these images without the mask loss, " if given is some else ""
        assert str(caught.value) == (
            f"{missing} of {count} training images have no mask, which the method learns from: csvi masks "
            f"{benchmark.root} --out MASKS makes them, --data.masks MASKS names their folder, {without}and --method "
            "baseline needs none"
        )


def test_masks_of_other_names_are_named(config, sysu_root, tmp_path):
    root = shutil.copytree(sysu_root, tmp_path / "data")
    for mask in (root / "masks/cam1/0001").iterdir():
        mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
    config.data.root = str(root)
    found = "found cam1/0001/0001_mask.png where cam1/0001/0001.png, or another suffix, was expected"
    with pytest.raises(
        CsviError, match=rf"^2 of 96 training images have no mask, .* \({found} in {root}/masks\): csvi masks"
    ):
        open_set(config, read_benchmark(config.data))


def test_masks_of_nobody_are_told_and_a_modality_of_them_is_refused(config, sysu_root, tmp_path, caplog):
    root = shutil.copytree(sysu_root, tmp_path / "data")
    config.data.root, config.data.cache = str(root), str(tmp_path / "cache")
    infrared = sorted((root / "masks").glob("cam[36]/000[1-8]/*.png"))
    assert len(infrared) == 32
    for mask in infrared[:2]:
        Image.new("L", (24, 48)).save(mask)
    for _ in range(2):  # decoded, and from the cache
        caplog.clear()
        open_set(config, read_benchmark(config.data))
        assert f"2 of 32 infrared masks mark no person, such as {infrared[0]}" in caplog.text
    for mask in infrared:
        Image.new("L", (24, 48)).save(mask)
    with pytest.raises(CsviError, match=r"^no infrared mask marks a person, such as .*: write the person as 255"):
        open_set(config, read_benchmark(config.data))


def test_images_that_cannot_be_read_are_skipped_if_so_set(config, benchmark, tmp_path):
    config.data.cache, config.data.on_error = str(tmp_path / "cache"), "skip"
    records = list(benchmark.train)
    records[5] = dataclasses.replace(records[5], path="cam1/0001/gone.jpg")
    records[9] = dataclasses.replace(records[9], mask=None)
    training_set, loader, sampler = open_set(config, benchmark, records)
    assert {i: why.rpartition(": ")[2] for i, why in training_set.skipped.items()} == {
        5: "it is not there",
        9: f"the image {benchmark.root / records[9].path} has no mask",
    }
    assert training_set.used == [record for i, record in enumerate(records) if i not in (5, 9)]
    drawn = {s.image for epoch in range(4) for samples in (sampler.start(epoch), *sampler)[1:] for s in samples}
    assert drawn == set(range(len(records))) - {5, 9}
    assert len(list(loader)) == len(sampler)
    assert list(open_set(config, benchmark, records, masks=False)[0].skipped) == [5]
    config.data.on_error = "stop"
    with pytest.raises(CsviError, match=r"gone.jpg: it is not there"):
        open_set(config, benchmark, records, masks=False)


def test_images_without_a_usable_mask_are_trained_on_if_so_set(config, sysu_root, tmp_path):
    """Be the mask missing, broken or of another size: all images are used, in the same order."""
    root = shutil.copytree(sysu_root, tmp_path / "data")
    config.data.root, config.data.cache = str(root), str(tmp_path / "cache")
    whole = open_set(config, read_benchmark(config.data))[0]
    missing, broken, small = (root / "masks" / f"cam1/0001/{n:04d}.png" for n in (1, 2, 3))
    (root / "cam1/0001/0003.jpg").write_bytes((root / "cam1/0001/0002.jpg").read_bytes())
    missing.unlink()
    broken.write_bytes(b"no image")
    Image.new("L", (20, 40), 255).save(small)

    config.data.without_mask = "train"
    for on_error in ("stop", "skip"):
        config.data.on_error = on_error
        training_set = open_set(config, read_benchmark(config.data))[0]
        assert [training_set.records[i].path for i in training_set.without_mask] == [
            f"cam1/0001/{n:04d}.jpg" for n in (1, 2, 3)
        ]
        for word, why in zip(
            ("has no mask", "is not an image", "20x40"), training_set.without_mask.values(), strict=True
        ):
            assert word in why
        assert training_set.skipped == {}
        assert training_set.used == training_set.records
        assert len(training_set.used) == len(whole.used) + 1
        assert training_set.identities == whole.identities
        batch = training_set.images[range(len(training_set.records))]
        assert (~batch.has_mask).nonzero().flatten().tolist() == list(training_set.without_mask)
        assert batch.mask.flatten(1).any(1).tolist() == batch.has_mask.tolist()
    assert TrainingSet(read_benchmark(config.data), config.data, masks=False).without_mask == {}


def test_which_images_have_a_mask_is_no_part_of_the_digest(config, benchmark):
    config.data.without_mask = "train"
    some = [dataclasses.replace(r, mask=r.mask if i % 3 else None) for i, r in enumerate(benchmark.train)]
    digests = {open_set(config, benchmark, records)[0].digest for records in (benchmark.train, some)}
    assert len(digests) == 1


def test_a_modality_without_masks_is_warned_of_and_no_usable_mask_is_refused(config, sysu_root, tmp_path, caplog):
    root = shutil.copytree(sysu_root, tmp_path / "data")
    config.data.root, config.data.cache, config.data.without_mask = str(root), str(tmp_path / "cache"), "train"
    for mask in (root / "masks").glob("cam[36]/*/*.png"):
        mask.unlink()
    open_set(config, read_benchmark(config.data))
    assert "no infrared image has a usable mask, so that only masks of the other modality are learned" in caplog.text
    for mask in (root / "masks").glob("*/*/*.png"):
        mask.write_bytes(b"no image")
    with pytest.raises(CsviError, match=r"^no training image has a usable mask, which the method learns from: .*0001"):
        open_set(config, read_benchmark(config.data))
