"""From records to batches: what they hold, and that they depend on the seed, the epoch and the position alone."""

import contextlib
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from csvi.config import save_config
from csvi.data import Modality, read_benchmark
from csvi.data import loader as module
from csvi.data.images import read_image
from csvi.data.loader import evaluation_loader, loader_errors, training_loader
from csvi.data.transforms import draw_variation, vary
from csvi.errors import CsviError


@pytest.fixture
def benchmark(config):
    return read_benchmark(config.data)


def epoch_of(config, benchmark, epoch=0, step=0, seed=0, **settings):
    for name, value in settings.items():
        setattr(config.data, name, value)
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed, masks=True)
    sampler.start(epoch, step)
    return list(loader)


def assert_equal(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_batch_is_a_flat_dictionary_of_tensors(config, benchmark):
    config.data.identities, config.data.images = 5, 3
    loader, sampler, identities = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
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
        assert {batch[key].dtype for key in ("image", "mask")} == {torch.uint8}
        assert batch["mask"].max() == 255


def test_labels_are_those_of_the_identities_with_both_modalities(config, benchmark):
    records = [r for r in benchmark.train if not (r.identity == 3 and r.modality == Modality.INFRARED)]
    config.data.identities = 7
    loader, _, identities = training_loader(benchmark.root, records, config.data, seed=0, masks=True)
    assert identities == [1, 2, 4, 5, 6, 7, 8]
    assert {int(label) for batch in loader for label in batch["identity"]} == set(range(7))


def test_the_number_of_workers_changes_nothing(config, benchmark):
    alone = epoch_of(config, benchmark, workers=0)
    torch.manual_seed(99)
    assert_equal(epoch_of(config, benchmark, workers=2), alone)


def test_augmentation_does_not_use_up_random_numbers_of_training(config, benchmark):
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
    state = torch.get_rng_state()
    loader.dataset[next(iter(sampler))]
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
    _, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
    (draws,) = list(sampler)
    twice = [b for b, draw in enumerate(draws) if draw.image == draws[0].image]
    assert len(twice) >= 2
    assert not torch.equal(batch["image"][twice[0]], batch["image"][twice[1]])


def test_a_loader_serves_epoch_after_epoch(config, benchmark):
    config.data.workers = 1
    loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
    for epoch, step in ((0, 1), (1, 0), (2, 0)):
        sampler.start(epoch, step)
        config.data.workers = 0
        assert_equal(list(loader), epoch_of(config, benchmark, epoch=epoch, step=step))


def test_masks_that_nobody_asks_for_are_not_even_decoded(config, benchmark, monkeypatch):
    monkeypatch.delattr(module, "cached_masks")
    loader, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=False)
    assert set(next(iter(loader))) == {"image", "identity", "modality"}


def test_a_batch_is_the_drawn_images_varied_as_their_seeds_say(config, benchmark):
    with_masks, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
    without, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=False)
    for draws, batch, same in zip(list(sampler), with_masks, without, strict=True):
        for i, draw in enumerate(draws):
            record = benchmark.train[draw.image]
            variation = draw_variation(draw.seed, record.modality, config.data)
            image, mask = read_image(benchmark.file(record), 48, 24, "RGB"), read_image(record.mask, 48, 24, "L")
            plain = {"image": torch.tensor(image).permute(2, 0, 1)[None], "mask": torch.tensor(mask)[None, None]}
            expected = vary(plain, [variation])
            assert torch.equal(batch["image"][i], expected["image"][0])
            assert torch.equal(batch["mask"][i], expected["mask"][0])
        assert torch.equal(same["image"], batch["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_all_images_once_in_order_without_variation(config, benchmark, workers):
    config.data.workers = workers
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data)
    batches = list(loader)
    assert [len(batch["identity"]) for batch in batches] == [64, 32]
    assert torch.cat([batch["identity"] for batch in batches]).tolist() == [r.identity for r in benchmark.test]
    assert torch.cat([batch["modality"] for batch in batches]).tolist() == [r.modality for r in benchmark.test]
    assert set(batches[0]) == {"image", "identity", "modality"}
    assert batches[0]["image"].shape == (64, 3, 48, 24)
    assert batches[0]["image"].is_contiguous(memory_format=torch.channels_last)
    expected = read_image(benchmark.file(benchmark.test[64]), 48, 24, "RGB")
    assert torch.equal(batches[1]["image"][0].permute(1, 2, 0), torch.tensor(expected))
    assert_equal(list(loader), batches)


def test_evaluation_in_batches_of_ones_own(config, benchmark):
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data, batches=[[5, 3], [90]])
    expected = [[benchmark.test[i].identity for i in batch] for batch in ([5, 3], [90])]
    assert [batch["identity"].tolist() for batch in loader] == expected


@pytest.mark.parametrize("training", [True, False])
def test_a_dataset_goes_to_other_processes_without_its_pixels(config, benchmark, training):
    """Where loader processes are spawned, as on macOS or from Python 3.14 on, it is pickled."""
    if training:
        loader, sampler, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
        index = next(iter(sampler))
    else:
        loader, index = evaluation_loader(benchmark.root, benchmark.train, config.data), [3, 1]
    pickled = pickle.dumps(loader.dataset)
    assert len(pickled) < 10_000
    found, expected = pickle.loads(pickled)[index], loader.dataset[index]
    assert all(torch.equal(found[key], expected[key]) for key in expected)


COMMAND = """
import multiprocessing, signal, sys
from pathlib import Path
from csvi.config import load_config
from csvi.data import read_benchmark
from csvi.data.loader import training_loader

data = load_config(Path(sys.argv[1])).data
data.workers = 2
benchmark = read_benchmark(data)
loader, sampler, _ = training_loader(benchmark.root, benchmark.train, data, 0, masks=False)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
batches = iter(loader)
next(batches)
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
sys.stdin.readline()
for epoch in range(1, 4):
    sampler.start(epoch)
    print(len(list(loader)), flush=True)
sys.stdin.readline()
1 / 0
"""


@pytest.fixture
def iterating(config, tmp_path):
    """A process that leads its group and waits, having taken a batch from two loader processes; and their numbers."""
    save_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "config.yaml")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        workers = [int(number) for number in process.stdout.readline().split()]
        assert len(workers) == 2
        try:
            yield process, workers
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def running(number):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ended_within(seconds, numbers):
    until = time.monotonic() + seconds
    while any(map(running, numbers)) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(map(running, numbers))


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="there any SIGTERM ends a loader process")
def test_a_signal_to_all_processes_is_left_to_the_main_one(iterating):
    process, workers = iterating
    for _ in range(3):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.killpg(process.pid, number)
        time.sleep(0.2)
    assert all(map(running, workers))
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(3)] == 3 * ["2\n"]
    _, errors = process.communicate(timeout=20)  # in which it crashes
    assert errors.endswith("ZeroDivisionError: division by zero\n")
    assert "DataLoader worker" not in errors
    assert ended_within(1, workers)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks there")
def test_loader_processes_end_with_a_main_one_that_is_killed(iterating):
    process, workers = iterating
    process.kill()
    assert ended_within(20, workers)


@pytest.mark.parametrize("training", [True, False])
def test_every_loader_leaves_signals_to_the_main_process(config, benchmark, training):
    if training:
        loader, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=True)
    else:
        loader = evaluation_loader(benchmark.root, benchmark.train, config.data)
    assert loader.worker_init_fn is module._leave_signals_to_the_main_process


def first_batch(loader, begun=lambda iterator: None):
    iterator = iter(loader)
    try:
        with loader_errors():
            begun(iterator)
            return next(iterator)
    finally:
        iterator._shutdown_workers()  # PyTorch waits for seconds when they are garbage, as in a traceback


def test_a_killed_loader_process_is_one_sentence(config, benchmark):
    config.data.workers = 2
    loader, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=False)

    def killed(iterator):
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        time.sleep(20)  # anywhere: it need not wait for a batch

    with pytest.raises(CsviError, match=r"^a loader process was ended, .*--resume auto.* is killed by signal: Killed"):
        first_batch(loader, killed)


def test_an_error_in_a_loader_process_has_its_own_words(config, benchmark, tmp_path):
    config.data.workers, config.data.cache = 1, str(tmp_path)
    loader, _, _ = training_loader(benchmark.root, benchmark.train, config.data, seed=0, masks=False)
    file = loader.dataset.plain.images.file
    os.truncate(file, 1000)
    with pytest.raises(CsviError) as caught:
        first_batch(loader)
    assert str(caught.value) == f"the image cache {file} ends too early: remove it, and it is written anew"


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __getitem__(self, index):
        raise self.error


def test_a_failing_disk_is_one_sentence_and_a_fault_of_ours_is_not():
    failing = {"batch_size": None, "sampler": [0], "num_workers": 1}
    with pytest.raises(CsviError, match=r"^\[Errno 5\] Input/output error$"):
        first_batch(DataLoader(Failing(OSError(5, "Input/output error")), **failing))
    with pytest.raises(RuntimeError, match=r"Original Traceback"):
        first_batch(DataLoader(Failing(RuntimeError("shapes")), **failing))
    for error in (CsviError("of the main process"), OSError("the same"), RuntimeError("the same")):
        with pytest.raises(type(error)) as caught, loader_errors():
            raise error
        assert caught.value is error


def test_images_that_cannot_be_read_are_skipped_if_so_set(config, benchmark, tmp_path):
    config.data.cache, config.data.on_error = str(tmp_path / "cache"), "skip"
    records = list(benchmark.train)
    records[5] = dataclasses.replace(records[5], path="cam1/0001/gone.jpg")
    records[9] = dataclasses.replace(records[9], mask=None)
    loader, sampler, _ = training_loader(benchmark.root, records, config.data, seed=0, masks=True)
    assert {i: why.rpartition(": ")[2] for i, why in sampler.skipped.items()} == {
        5: "it is not there",
        9: f"the image {benchmark.root / records[9].path} has no mask",
    }
    drawn = {draw.image for epoch in range(4) for draws in (sampler.start(epoch), *sampler)[1:] for draw in draws}
    assert drawn == set(range(len(records))) - {5, 9}
    assert len(list(loader)) == len(sampler)
    _, sampler, _ = training_loader(benchmark.root, records, config.data, seed=0, masks=False)
    assert list(sampler.skipped) == [5]
    config.data.on_error = "stop"
    with pytest.raises(CsviError, match=r"gone.jpg: it is not there"):
        training_loader(benchmark.root, records, config.data, seed=0, masks=False)
