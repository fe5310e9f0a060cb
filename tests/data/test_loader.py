"""From records to batches: what they hold, and that they depend on the seed, the epoch and the position alone."""

import pickle
import signal

import pytest
import torch

from csvi.data import Modality, read_benchmark
from csvi.data.loader import evaluation_loader, training_loader


@pytest.fixture
def benchmark(config):
    return read_benchmark(config.data)


def epoch_of(config, benchmark, epoch=0, step=0, seed=0, **settings):
    for name, value in settings.items():
        setattr(config.data, name, value)
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed)
    sampler.start(epoch, step)
    return list(loader)


def assert_equal(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_batch_is_a_flat_dictionary_of_tensors(config, benchmark):
    config.data.identities, config.data.images = 5, 3
    loader, sampler, identities = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
    draws = list(sampler)
    batches = list(loader)
    assert len(batches) == len(loader) == 5  # 8 identities of 8 visible images, 15 a batch
    for draw, batch in zip(draws, batches, strict=True):
        assert {key: tuple(value.shape) for key, value in batch.items()} == {
            "image": (30, 3, 48, 24), "mask": (30, 1, 48, 24), "identity": (30,), "modality": (30,),
        }  # fmt: skip
        assert {type(value) for value in batch.values()} == {torch.Tensor}
        assert batch["modality"].tolist() == 15 * [0] + 15 * [1]
        records = [benchmark.train[d.image] for d in draw]
        assert [identities[label] for label in batch["identity"]] == [record.identity for record in records]
        assert 0 <= batch["mask"].min() < batch["mask"].max() <= 1


def test_labels_are_those_of_the_identities_with_both_modalities(config, benchmark):
    records = [r for r in benchmark.train if not (r.identity == 3 and r.modality == Modality.INFRARED)]
    config.data.identities = 7
    loader, _, identities = training_loader(benchmark.root, records, config.data, seed=0)
    assert identities == [1, 2, 4, 5, 6, 7, 8]
    assert {int(label) for batch in loader for label in batch["identity"]} == set(range(7))


def test_the_number_of_workers_changes_nothing(config, benchmark):
    alone = epoch_of(config, benchmark, workers=0)
    torch.manual_seed(99)
    assert_equal(epoch_of(config, benchmark, workers=2), alone)


def test_augmentation_does_not_use_up_random_numbers_of_training(config, benchmark):
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
    state = torch.get_rng_state()
    for draw in next(iter(sampler)):
        loader.dataset[draw]
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_depends_on_seed_epoch_and_position_alone(config, benchmark):
    config.data.identities = 4  # four steps
    first = epoch_of(config, benchmark, epoch=3)
    torch.manual_seed(1)
    assert_equal(epoch_of(config, benchmark, epoch=3), first)
    assert_equal(epoch_of(config, benchmark, epoch=3, step=2), first[2:])
    for other in (epoch_of(config, benchmark, epoch=4), epoch_of(config, benchmark, epoch=3, seed=1)):
        assert not torch.equal(other[0]["image"], first[0]["image"])


def test_an_image_drawn_twice_is_varied_twice(config, benchmark):
    config.data.images = 20  # of 8 visible and 4 infrared images
    (batch,) = epoch_of(config, benchmark)
    _, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
    (draws,) = list(sampler)
    twice = [b for b, draw in enumerate(draws) if draw.image == draws[0].image]
    assert len(twice) >= 2
    assert not torch.equal(batch["image"][twice[0]], batch["image"][twice[1]])


def test_a_loader_serves_epoch_after_epoch(config, benchmark):
    config.data.workers = 1
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
    for epoch, step in ((0, 1), (1, 0), (2, 0)):
        sampler.start(epoch, step)
        config.data.workers = 0
        assert_equal(list(loader), epoch_of(config, benchmark, epoch=epoch, step=step))


def test_without_masks_a_batch_has_none(config, benchmark):
    bare = [type(r)(r.path, r.identity, r.camera, r.modality) for r in benchmark.train]
    loader, _, _ = training_loader(benchmark.root, bare, config.data, seed=0)
    assert set(next(iter(loader))) == {"image", "identity", "modality"}


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_all_images_once_in_order_without_variation(config, benchmark, workers):
    config.data.workers = workers
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data)
    batches = list(loader)
    assert [len(batch["identity"]) for batch in batches] == [64, 32]
    assert torch.cat([batch["identity"] for batch in batches]).tolist() == [r.identity for r in benchmark.test]
    assert torch.cat([batch["modality"] for batch in batches]).tolist() == [r.modality for r in benchmark.test]
    assert batches[0]["mask"].shape == (64, 1, 48, 24)
    assert_equal(list(loader), batches)


def test_evaluation_in_batches_of_ones_own(config, benchmark):
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data, batches=[[5, 3], [90]])
    expected = [[benchmark.test[i].identity for i in batch] for batch in ([5, 3], [90])]
    assert [batch["identity"].tolist() for batch in loader] == expected


@pytest.mark.parametrize("training", [True, False])
def test_a_dataset_goes_to_other_processes_without_its_pixels(config, benchmark, training):
    """Where loader processes are spawned, as on macOS or from Python 3.14 on, it is pickled."""
    if training:
        loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
        index = next(iter(sampler))[0]
    else:
        loader, index = evaluation_loader(benchmark.root, benchmark.train, config.data), 0
    pickled = pickle.dumps(loader.dataset)
    assert len(pickled) < 30_000 < loader.dataset.cache.images.nbytes
    found, expected = pickle.loads(pickled)[index], loader.dataset[index]
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("training", [True, False])
def test_ctrl_c_does_not_end_the_workers(config, benchmark, training):
    config.data.workers = 1
    if training:
        loader, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0)
    else:
        loader = evaluation_loader(benchmark.root, benchmark.train, config.data)
    before = signal.getsignal(signal.SIGINT)
    try:
        loader.worker_init_fn(0)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
