"""From records to batches: what they hold, and that they depend on the seed, the epoch and the position alone."""

import contextlib
import ctypes
import dataclasses
import json
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from csvi.data import Modality, read_benchmark
from csvi.data import loader as module
from csvi.data.batch import Batch
from csvi.data.images import read_image
from csvi.data.loader import batch_loader, evaluation_loader, loader_errors
from csvi.data.masks import read_mask
from csvi.data.training_set import TrainingSet
from csvi.data.views import Erase, Flip, Grayscale, Shift, augment, standard_views
from csvi.errors import CsviError

TWO_VISIBLE = {
    Modality.VISIBLE: ((Flip(0.5), Shift(3)), (Shift(3), Grayscale(1))),
    Modality.INFRARED: ((Flip(0.5), Erase(1)),),
}


@pytest.fixture
def benchmark(config):
    return read_benchmark(config.data)


def training_loader(config, benchmark, seed=0, masks=True, views=None):
    return TrainingSet(benchmark, config.data, masks).loader(views or standard_views(config.data), seed)


def epoch_of(config, benchmark, epoch=0, step=0, seed=0, views=None, **settings):
    for name, value in settings.items():
        setattr(config.data, name, value)
    loader, sampler = training_loader(config, benchmark, seed, views=views)
    sampler.start(epoch, step)
    return list(loader)


def assert_equal(some, others):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert type(a) is type(b) is Batch
        assert [rows is None for rows in a] == [rows is None for rows in b]
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True) if one is not None)


def test_a_batch_is_one_object_of_tensors(config, benchmark):
    config.data.identities, config.data.images = 5, 3
    training_set = TrainingSet(benchmark, config.data, masks=True)
    loader, sampler = training_set.loader(standard_views(config.data), seed=0)
    drawn = list(sampler)
    batches = list(loader)
    assert len(batches) == len(loader) == 5  # 8 identities of 8 visible images, 15 a batch
    for samples, batch in zip(drawn, batches, strict=True):
        assert type(batch) is Batch
        assert {name: tuple(rows.shape) for name, rows in zip(Batch._fields[:5], batch[:5], strict=True)} == {
            "image": (30, 3, 48, 24), "mask": (30, 1, 48, 24), "identity": (30,), "modality": (30,), "view": (30,),
        }  # fmt: skip
        assert {type(rows) for rows in batch[:5]} == {torch.Tensor}
        assert batch.modality.tolist() == 15 * [0] + 15 * [1]
        assert batch.view.tolist() == 30 * [0]
        assert batch.has_mask is batch.route is None
        records = [benchmark.train[sample.image] for sample in samples]
        assert [training_set.identities[label] for label in batch.identity] == [record.identity for record in records]
        assert {batch.image.dtype, batch.mask.dtype} == {torch.uint8}
        assert batch.mask.max() == 255


def test_a_batch_has_the_visible_images_view_by_view_and_then_the_infrared_ones(config, benchmark):
    config.data.identities, config.data.images = 5, 3
    loader, sampler = training_loader(config, benchmark, views=TWO_VISIBLE)
    samples = next(iter(sampler))
    batch = next(iter(loader))
    rows = [*samples[:15], *samples[:15], *samples[15:]]
    assert len(batch.image) == len(batch.mask) == 45
    assert batch.view.tolist() == 15 * [0] + 15 * [1] + 15 * [0]
    assert batch.modality.tolist() == 30 * [0] + 15 * [1]
    assert torch.equal(batch.identity[:15], batch.identity[15:30])
    assert [benchmark.train[sample.image].identity - 1 for sample in rows] == batch.identity.tolist()
    for row, (sample, number, modality) in enumerate(zip(rows, batch.view.tolist(), batch.modality, strict=True)):
        view = TWO_VISIBLE[Modality(int(modality))][number]
        seed = (sample.seed, number) if number else sample.seed
        image, mask = augment(view, *pixels_of(benchmark, sample), seed)
        assert torch.equal(batch.image[row], image)
        assert torch.equal(batch.mask[row], mask)


def test_a_batch_says_of_each_view_whether_its_image_has_a_mask(config, benchmark):
    config.data.identities, config.data.images, config.data.without_mask = 5, 3, "train"
    whole = epoch_of(config, benchmark, views=TWO_VISIBLE)
    train = [dataclasses.replace(r, mask=None) if r.camera < 3 else r for r in benchmark.train]
    loader, sampler = training_loader(config, dataclasses.replace(benchmark, train=train), views=TWO_VISIBLE)
    for samples, batch, complete in zip(list(sampler), loader, whole, strict=True):
        rows = [*samples[:15], *samples[:15], *samples[15:]]
        assert batch.has_mask.tolist() == [train[sample.image].mask is not None for sample in rows]
        assert torch.equal(batch.mask, complete.mask * batch.has_mask[:, None, None, None])
        assert_equal([batch._replace(mask=None, has_mask=None)], [complete._replace(mask=None)])


def test_further_views_change_nothing_of_the_first(config, benchmark):
    one = {modality: views[:1] for modality, views in TWO_VISIBLE.items()}
    for alone, both in zip(
        epoch_of(config, benchmark, views=one), epoch_of(config, benchmark, views=TWO_VISIBLE), strict=True
    ):
        assert_equal([both.subset(both.view == 0)], [alone])


def test_several_views_depend_on_seed_epoch_and_position_alone(config, benchmark):
    first = epoch_of(config, benchmark, epoch=3, views=TWO_VISIBLE, workers=0, identities=4)
    assert_equal(epoch_of(config, benchmark, epoch=3, step=2, views=TWO_VISIBLE, workers=2), first[2:])


def test_the_number_of_workers_changes_nothing(config, benchmark):
    alone = epoch_of(config, benchmark, workers=0)
    torch.manual_seed(99)
    assert_equal(epoch_of(config, benchmark, workers=2), alone)


def test_augmentation_does_not_use_up_random_numbers_of_training(config, benchmark):
    loader, sampler = training_loader(config, benchmark)
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
        assert not torch.equal(other[0].image, first[0].image)


def test_an_image_drawn_twice_is_augmented_twice(config, benchmark):
    config.data.images = 20  # of 8 visible and 4 infrared images
    (batch,) = epoch_of(config, benchmark)
    _, sampler = training_loader(config, benchmark)
    (samples,) = list(sampler)
    twice = [b for b, sample in enumerate(samples) if sample.image == samples[0].image]
    assert len(twice) >= 2
    assert not torch.equal(batch.image[twice[0]], batch.image[twice[1]])


def test_a_loader_serves_epoch_after_epoch(config, benchmark):
    config.data.workers = 1
    loader, sampler = training_loader(config, benchmark)
    for epoch, step in ((0, 1), (1, 0), (2, 0)):
        sampler.start(epoch, step)
        config.data.workers = 0
        assert_equal(list(loader), epoch_of(config, benchmark, epoch=epoch, step=step))


def pixels_of(benchmark, sample):
    record = benchmark.train[sample.image]
    image, mask = read_image(benchmark.file(record), 48, 24), read_mask(record.mask, 48, 24, 255)
    return torch.tensor(image).permute(2, 0, 1), torch.tensor(mask)[None]


def test_a_batch_is_the_drawn_images_augmented_as_their_seeds_say(config, benchmark):
    views = standard_views(config.data)
    with_masks, sampler = training_loader(config, benchmark)
    without, _ = training_loader(config, benchmark, masks=False)
    for samples, batch, same in zip(list(sampler), with_masks, without, strict=True):
        for i, sample in enumerate(samples):
            (view,) = views[benchmark.train[sample.image].modality]
            image, mask = augment(view, *pixels_of(benchmark, sample), sample.seed)
            assert torch.equal(batch.image[i], image)
            assert torch.equal(batch.mask[i], mask)
        assert torch.equal(same.image, batch.image)
        assert same.mask is None


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_takes_all_images_once_in_order_as_they_are(config, benchmark, workers):
    config.data.workers = workers
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data)
    batches = list(loader)
    assert [len(batch.identity) for batch in batches] == [64, 32]
    assert torch.cat([batch.identity for batch in batches]).tolist() == [r.identity for r in benchmark.test]
    assert torch.cat([batch.modality for batch in batches]).tolist() == [r.modality for r in benchmark.test]
    assert set(batches[0][3:]) == {None}
    assert batches[0].image.shape == (64, 3, 48, 24)
    assert batches[0].image.is_contiguous(memory_format=torch.channels_last)
    expected = read_image(benchmark.file(benchmark.test[64]), 48, 24)
    assert torch.equal(batches[1].image[0].permute(1, 2, 0), torch.tensor(expected))
    assert_equal(list(loader), batches)


def test_evaluation_in_batches_of_ones_own(config, benchmark):
    loader = evaluation_loader(benchmark.root, benchmark.test, config.data, batches=[[5, 3], [90]])
    expected = [[benchmark.test[i].identity for i in batch] for batch in ([5, 3], [90])]
    assert [batch.identity.tolist() for batch in loader] == expected


@pytest.mark.parametrize("training", [True, False])
def test_a_dataset_goes_to_other_processes_without_its_pixels(config, benchmark, training):
    """Where loader processes are spawned, as on macOS or from Python 3.14 on, it is pickled."""
    if training:
        loader, sampler = training_loader(config, benchmark)
        index = next(iter(sampler))
    else:
        loader, index = evaluation_loader(benchmark.root, benchmark.train, config.data), [3, 1]
    pickled = pickle.dumps(loader.dataset)
    assert len(pickled) < 10_000
    assert_equal([pickle.loads(pickled)[index]], [loader.dataset[index]])


COMMAND = """
import json, multiprocessing, signal, sys
from csvi.config import DataConfig
from csvi.data import read_benchmark
from csvi.data.training_set import TrainingSet
from csvi.data.views import standard_views

data = DataConfig(**json.loads(sys.argv[1]) | {"workers": 2})
training_set = TrainingSet(read_benchmark(data), data, masks=False)
loader, sampler = training_set.loader(standard_views(data), seed=0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
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
def iterating(config):
    """A process that leads its group and waits, having taken a batch from two loader processes; and their numbers."""
    command = [sys.executable, "-c", COMMAND, json.dumps(dataclasses.asdict(config.data))]
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="there any SIGTERM ends a loader process")
def test_a_signal_to_all_processes_is_left_to_the_main_one(iterating):
    process, workers = iterating
    for _ in range(3):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks there")
def test_loader_processes_end_with_a_main_one_that_is_killed(iterating):
    process, workers = iterating
    process.kill()
    assert ended_within(60, workers)  # they look for it every five seconds, on a machine that may be busy


@pytest.mark.parametrize("training", [True, False])
def test_every_loader_leaves_signals_to_the_main_process(config, benchmark, training):
    if training:
        loader, _ = training_loader(config, benchmark)
    else:
        loader = evaluation_loader(benchmark.root, benchmark.train, config.data)
    assert loader.worker_init_fn is module._begin


def first_batch(loader, begun=lambda iterator: None):
    iterator = iter(loader)
    try:
        with loader_errors():
            begun(iterator)
            return next(iterator)
    finally:
        iterator._shutdown_workers()  # PyTorch waits for seconds when they are garbage, as in a traceback


def in_another_process(work):
    """Run a function in a process of its own, which is not to hang; returns its exit status."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(work() or 0))
    process.start()
    process.join(30)
    process.kill()
    process.join()
    return process.exitcode


def long_tmpdir(folder):
    """Let this process have temporary files where the path of a socket does not fit."""
    long = folder / (60 * "d") / (60 * "e")
    long.mkdir(parents=True)
    tempfile.tempdir = str(long)
    multiprocessing.current_process()._config.pop("tempdir", None)


def small_shared_memory(size):
    """Let this process have little room in /dev/shm; returns whether it may."""
    new_mounts = 0x20000
    commands = (["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"])
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL(None).unshare(new_mounts) == 0:
            return all(subprocess.run(command, check=False).returncode == 0 for command in commands)
    return False


SKIP = 77


@pytest.mark.parametrize("place", ["TMPDIR", "/dev/shm"])
def test_batches_need_neither_a_short_tmpdir_nor_shared_memory(config, benchmark, tmp_path, place):
    """Both were waited for without end: of what fails as a batch is sent, PyTorch tells the main process nothing."""
    alone = epoch_of(config, benchmark, workers=0)

    def load():
        if place == "TMPDIR":
            long_tmpdir(tmp_path)
        elif not small_shared_memory("128k"):  # as much as the locks of the processes take; a batch is twice that
            return SKIP
        assert_equal(epoch_of(config, benchmark, workers=2), alone)

    status = in_another_process(load)
    if status == SKIP:
        pytest.skip("may not mount anything")
    assert status == 0


def test_no_room_for_the_locks_of_loader_processes_is_one_sentence(config, benchmark):
    def load():
        if not small_shared_memory("4k"):
            return SKIP
        with pytest.raises(
            CsviError, match=r"^cannot start loader processes \(.*No space left.*\): --data\.workers 0 .*shm"
        ):
            epoch_of(config, benchmark, workers=2)

    status = in_another_process(load)
    if status == SKIP:
        pytest.skip("may not mount anything")
    assert status == 0


def test_what_goes_wrong_as_a_batch_is_sent_is_one_sentence(tmp_path, monkeypatch, capfd):
    """As PyTorch sends it, by a socket in TMPDIR; and of a batch that cannot be sent at all."""

    def send(batch):
        loader = batch_loader([batch], [0], 1, persistent=False)
        with pytest.raises(
            CsviError, match=f"^a loader process cannot send its batch .*{why}.*: --data.workers 0.*TMPDIR"
        ):
            first_batch(loader)

    rows = torch.zeros(2, 3, 4, 4)
    why = "requires grad"
    send(Batch(rows.clone().requires_grad_(), torch.zeros(2), torch.zeros(2)))
    monkeypatch.setattr(module, "_packed", lambda batch: batch)
    why = "AF_UNIX path too long"
    assert in_another_process(lambda: (long_tmpdir(tmp_path), send(Batch(rows, rows, rows)))[2:]) == 0
    assert "Traceback" not in capfd.readouterr().err


class BreakingPipes(Dataset):
    def __getitem__(self, index):
        def broken(*_):
            raise BrokenPipeError

        multiprocessing.connection.Connection._send_bytes = broken  # in the loader process alone
        return Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2), torch.zeros(2))


def test_a_pipe_that_breaks_ends_the_loader_process():
    with pytest.raises(CsviError, match=r"^a loader process was ended.* exited unexpectedly"):
        first_batch(batch_loader(BreakingPipes(), [0], 1, persistent=False))


def test_a_batch_from_a_loader_process_lies_in_memory_as_it_was_made():
    image = torch.randint(256, (5, 8, 6, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    masks = torch.randint(256, (5, 1, 8, 6), dtype=torch.uint8)
    for batch in (
        Batch(image, torch.arange(5), torch.arange(5), masks, torch.arange(5), torch.arange(5) > 1),
        Batch(image, torch.arange(5), torch.arange(5)),
    ):
        arrived = pickle.loads(pickle.dumps(module._Parcel(batch)))
        assert_equal([arrived], [batch])
        assert arrived.image.stride() == image.stride()
        assert all(rows is None or rows.dtype == sent.dtype for rows, sent in zip(arrived, batch, strict=True))
        arrived.image.add_(1)  # it is the caller's own


def test_a_killed_loader_process_is_one_sentence(config, benchmark):
    config.data.workers = 2
    loader, _ = training_loader(config, benchmark, masks=False)

    def killed(iterator):
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        time.sleep(20)  # anywhere: it need not wait for a batch

    with pytest.raises(CsviError, match=r"^a loader process was ended, .*--resume auto.* is killed by signal: Killed"):
        first_batch(loader, killed)


def test_an_error_in_a_loader_process_has_its_own_words(config, benchmark, tmp_path):
    config.data.workers, config.data.cache = 1, str(tmp_path)
    loader, _ = training_loader(config, benchmark, masks=False)
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
