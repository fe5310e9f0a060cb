"""Training on several processes (gloo, on this machine), and in parts of a batch: the same as in one."""

import copy
import json
import logging
import multiprocessing
import os
import select
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from csvi.config import Config, DataConfig, TrainConfig, flatten
from csvi.data.batch import Batch
from csvi.errors import CsviError
from csvi.fabric import make_fabric
from csvi.losses import hetero_center_loss
from csvi.losses.loss import part_of_batch
from csvi.methods import METHODS, build_method, find_method
from csvi.model.vit import VisionTransformer
from csvi.runs import save_config
from csvi.runs.embeddings import EVALUATION_BATCH, embed, embed_together
from csvi.train.checkpoint import check_resumable, epochs_done
from csvi.train.loop import in_parts, train, train_step
from csvi.train.optimizer import build_optimizer
from csvi.train.processes import LOST, synchronize_norms
from csvi.train.recompute import checkpoint_activations

HEIGHT, WIDTH, IDENTITIES, STEPS = 48, 24, 4, 2
SMALL = {"backbone": "mobilenet_v2", "weights": "none", "parts": 3, "part_dim": 8, "widths": (8, 4), "dropout": 0.0}
SGD = TrainConfig(lr=0.01, momentum=0.9)


def built(name, **settings):
    """A method for four people with the tiny trunk, in float64 and in the epoch in which it has all its losses."""
    kind = find_method(name).Settings
    known = {key: value for key, value in (SMALL | settings).items() if key in kind.__dataclass_fields__}
    torch.manual_seed(0)
    method = build_method(Config(kind(**known), data=DataConfig(height=HEIGHT, width=WIDTH)), IDENTITIES).double()
    method.begin_epoch(7)
    return method


def batch_of(method, seed=1):
    """Two visible and two infrared images of each of four people, in all views; some of two of them have no mask."""
    torch.manual_seed(seed)
    rows = [(int(m), v) for m, of in method.views(DataConfig()).items() for v in range(len(of))]
    modality, view = torch.tensor(rows).repeat_interleave(8, 0).unbind(1)
    identity = torch.arange(4).repeat_interleave(2).repeat(len(rows))
    return Batch(
        image=torch.randn(len(view), 3, HEIGHT, WIDTH, dtype=torch.float64),
        modality=modality,
        identity=identity,
        mask=torch.rand(len(view), 1, HEIGHT, WIDTH, dtype=torch.float64),
        view=view,
        has_mask=(identity > 1) | (torch.arange(len(view)) % 2 > 0),
    )


def trained(fabric, method, batches, **options):
    """The loss terms of each step, and the method as it is afterwards."""
    wrapped, optimizer = fabric.setup(method, build_optimizer(method.groups(SGD), SGD))
    terms = [train_step(fabric, method, wrapped, optimizer, b, n, **options)[0] for n, b in enumerate(batches)]
    terms = [{name: float(term.detach()) for name, term in step.items()} for step in terms]
    return terms, {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}


def alone():
    return Fabric(accelerator="cpu", devices=1, precision="64-true")


class Ranks:
    """Processes that find each other as those of torchrun do, forked from one that has imported torch already."""

    def __init__(self, start_csvi):
        self.start_csvi = start_csvi

    def environment(self, world_size):
        """Variables of each rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = {"TORCHELASTIC_RUN_ID": "csvi", "WORLD_SIZE": f"{world_size}", "GROUP_RANK": "0"}
        together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
        return [together | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} for rank in range(world_size)]

    def csvi(self, *arguments_of_ranks, stderr, code=""):
        """Start the command line as each rank, with its arguments; what they say goes to files `stderr`-RANK.

        Each runs the code before.
        """
        started = []
        for rank, variables in enumerate(self.environment(len(arguments_of_ranks))):
            before = f"os.environ.update({variables})\nos.dup2(os.open({f'{stderr}-{rank}'!r}, 577, 0o600), 2)"
            started.append(self.start_csvi(*arguments_of_ranks[rank], before=f"{before}\n{code}"))
        return started

    def csvi_ends(self, *arguments_of_ranks, stderr, code="", within=60):
        """Run the command line as each rank, within so many seconds; the exit status of each, and what each says."""
        started = self.csvi(*arguments_of_ranks, stderr=stderr, code=code)
        for process in started:
            process.join(within)
        said = [Path(f"{stderr}-{rank}").read_text() for rank in range(len(started))]
        return [process.exitcode for process in started], said

    def call(self, function, folder, world_size):
        """Call a function of this file in each of so many processes, with the folder."""
        context = multiprocessing.get_context("forkserver")
        variables = self.environment(world_size)
        started = [context.Process(target=_begin, args=(variables[r], function, folder)) for r in range(world_size)]
        for process in started:
            process.start()
        for process in started:
            process.join(60)
        assert [process.exitcode for process in started] == [0] * world_size


def _begin(variables, function, folder):
    os.environ.update(variables)
    torch.set_num_threads(1)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator="cpu", devices=int(variables["WORLD_SIZE"]), precision="64-true")
    fabric.launch()
    function(fabric, folder)


@pytest.fixture(scope="module")
def ranks(start_csvi):
    return Ranks(start_csvi)


def train_shares(fabric, folder):
    """Train every method in the folder on this rank's people of each batch."""
    found = {}
    for name, (method, batches, options) in torch.load(folder / "methods.pt", weights_only=False).items():
        synchronize_norms(method, fabric.device)
        shares = [in_parts(batch, fabric.world_size)[fabric.global_rank] for batch in batches]
        found[name] = trained(fabric, method, shares, **options)
    torch.save(found, folder / f"found-{fabric.global_rank}.pt")


@pytest.fixture
def train_together(ranks, tmp_path):
    """Train methods, name -> (method, batches, options of a step), on two processes; returns what each found."""

    def train_these(methods):
        torch.save(methods, tmp_path / "methods.pt")
        ranks.call(train_shares, tmp_path, 2)
        return [torch.load(tmp_path / f"found-{rank}.pt") for rank in (0, 1)]

    return train_these


def assert_close(found, expected, name):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, msg=lambda text: f"{name}: {text}")


@pytest.mark.slow
def test_two_processes_train_every_method_as_one_does_on_the_whole_batch(train_together):
    given = {}
    for name in METHODS:
        method = built(name)
        given[name] = method, [batch_of(method, seed) for seed in range(STEPS)], {"gather": True}
    found = train_together(given)
    for name, (method, batches, _) in given.items():
        before = copy.deepcopy(method.state_dict())
        terms, state = trained(alone(), method, batches)
        for rank in (0, 1):
            assert_close(found[rank][name], (terms, state), name)
        assert any((state[key] - before[key]).abs().max() > 1e-4 for key in state), name


def test_without_gathering_gradients_are_those_of_the_mean_of_the_losses(train_together):
    """Batch norms as they are. A sum over identities is then that of a process: with two, half of the whole batch's."""
    method = built("coseg").eval()
    batches = [batch_of(method)._replace(has_mask=None)]
    ((each, of_each), (_, of_other)) = (found["each"] for found in train_together({"each": (method, batches, {})}))
    halved = built("coseg", center_weight=0.25).eval()
    (terms,), expected = trained(alone(), halved, batches)
    assert_close(of_each, expected, "weights")
    assert_close(of_other, expected, "weights")
    assert each[0]["identity"] != pytest.approx(terms["identity"], rel=1e-3)  # the log has the first process's own


def test_processes_and_micro_batches_go_together(train_together):
    method = built("coseg").eval()
    batches = [batch_of(method)._replace(has_mask=None)] * STEPS
    found = train_together({"both": (method, batches, {"gather": True, "parts": 2})})
    expected = trained(alone(), method, batches)
    for rank in (0, 1):
        assert_close(found[rank]["both"], expected, rank)


def embed_shares(fabric, folder):
    """Embed the images in the folder, divided among the ranks, and others that are fewer than the ranks."""
    net, image, modality = torch.load(folder / "images.pt", weights_only=False)
    for buffer in net.buffers():
        buffer += fabric.global_rank  # as after a training step
    given = []

    def load(batches):
        for numbers in batches:
            given.extend(numbers)
            yield Batch(image[list(numbers)], modality[list(numbers)], modality[list(numbers)])

    few, many = embed_together(net, 1, load, fabric), embed_together(net, len(image), load, fabric)
    torch.save((few, many, given), folder / f"found-{fabric.global_rank}.pt")


def test_three_processes_embed_each_image_once_and_in_order_however_many_there_are(ranks, tmp_path):
    torch.manual_seed(0)
    images = 3 * EVALUATION_BATCH + 5  # four batches, the last one smaller
    net, image, modality = (
        built("baseline").net.eval(),
        torch.randn(images, 3, 16, 16).double(),
        torch.arange(images) % 2,
    )
    torch.save((net, image, modality), tmp_path / "images.pt")
    ranks.call(embed_shares, tmp_path, 3)
    expected = embed(net, [Batch(image, modality, modality)], alone())
    found = [torch.load(tmp_path / f"found-{rank}.pt") for rank in range(3)]
    for few, many, _ in found:
        torch.testing.assert_close(few, expected[:1])
        torch.testing.assert_close(many, expected)
    assert sorted(number for *_, given in found for number in given) == sorted([0, *range(images)])
    assert [len(given) for *_, given in found] == [1 + EVALUATION_BATCH + 5, EVALUATION_BATCH, EVALUATION_BATCH]


@pytest.fixture
def settings(config, tmp_path):
    """Two steps an epoch of all eight people, on any number of processes."""
    config.method = find_method("baseline").Settings(backbone="mobilenet_v2", weights="none", parts=3, part_dim=8)
    config.data.height, config.data.width = 32, 16
    config.train.global_identities, config.train.gather, config.train.sync_batchnorm = 8, True, True
    config.train.validate_every = 1
    return config


def arguments(config, folder, run, *others):
    save_config(config, folder / "settings.yaml")
    return ["train", f"--config={folder / 'settings.yaml'}", f"--run={run}", "--resume=auto", *others]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_leave_the_run_of_one_and_only_the_first_writes(ranks, settings, tmp_path, real_trunk):
    run, other, one = tmp_path / "run", tmp_path / "other", tmp_path / "one"
    status, said = ranks.csvi_ends(
        *(arguments(settings, tmp_path, folder, "--devices=2") for folder in (run, other)), stderr=tmp_path / "said"
    )
    assert status == [0, 0], said
    assert "batch: 8 identities, 4 in each of 2 processes, losses of all images together" in said[0]
    assert said[1].strip() == ""
    assert not other.exists()
    train(settings, one)
    assert sorted(file.name for file in run.iterdir() if "events" not in file.name) == sorted(
        file.name for file in one.iterdir() if "events" not in file.name
    )
    found, expected = lines(run), lines(one)
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    assert [line["step"] for line in found] == [1, 2, 2]  # the last one of the validation
    for term in ("loss", "identity", "center", "lr"):  # later steps of this network enlarge rounding
        assert found[0][f"train/{term}"] == pytest.approx(expected[0][f"train/{term}"], rel=1e-4)


@pytest.mark.slow
def test_a_lost_process_ends_the_run_which_is_resumed_on_another_number_of_them(ranks, settings, tmp_path, real_trunk):
    run = tmp_path / "run"
    settings.train.epochs, settings.train.checkpoint_every, settings.train.validate_every = 10_000, 1e-9, 0
    first, second = ranks.csvi(*[arguments(settings, tmp_path, run, "--devices=2")] * 2, stderr=tmp_path / "said")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not (run / "last.ckpt").exists() or not epochs_done(run)):
        time.sleep(0.05)
    second.kill()
    killed = time.monotonic()
    first.join(60)
    assert time.monotonic() - killed < 60
    assert first.exitcode == 1
    said = (tmp_path / "said-0").read_text()
    assert "process 0 has lost another process of this run: the same command resumes the run" in said
    assert "Traceback" not in said
    done = epochs_done(run)
    assert done >= 1
    settings.train.epochs = done + 1
    train(settings, run, resume="auto")
    assert epochs_done(run) == done + 1
    assert [line["step"] for line in lines(run)] == list(range(1, 2 * (done + 1) + 1))


@pytest.fixture
def start_first(start_csvi, settings, tmp_path):
    """Start `csvi train --devices 2` with code to run before, and as its other process a script of this text."""

    def start(other, before=""):
        script = tmp_path / "other.py"
        script.write_text(other)
        run = arguments(settings, tmp_path, tmp_path / "run", "--devices=2")
        as_script = f"sys.argv, sys.modules['__main__'].__spec__ = {[str(script), *run]}, None"
        said = f"os.dup2(os.open({str(tmp_path / 'said')!r}, 577, 0o600), 2)"
        return start_csvi(*run, before="\n".join([as_script, said, before]))

    return start


@pytest.mark.parametrize(("status", "of_first"), [(3, 1), (75, 75)])
def test_one_that_is_lost_before_all_have_found_each_other_is_named(start_first, tmp_path, status, of_first):
    first = start_first(f"raise SystemExit({status})")
    first.join(30)
    assert first.exitcode == of_first
    assert (tmp_path / "said").read_text() == f"process 1 has ended with status {status}: {LOST}\n"


OTHER = "import sys\nfrom csvi.cli import main\nsys.exit(main(sys.argv[1:]))"
KILLED = """
import signal
os.dup2(os.open({held!r}, os.O_WRONLY), 0)
torch.distributed.init_process_group = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_where_the_first_one_is_lost_the_others_do_not_wait_for_it(start_first, tmp_path):
    held = tmp_path / "held"
    os.mkfifo(held)
    ended = select.poll()
    ended.register(os.open(held, os.O_RDONLY | os.O_NONBLOCK), 0)  # until nobody has it open for writing
    first = start_first(OTHER, KILLED.format(held=str(held)))
    first.join(30)
    assert first.exitcode == -9
    assert ended.poll(40_000)
    assert (tmp_path / "said").read_text() == f"the process that started this one is gone: {LOST}\n"


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("os.environ['MASTER_PORT'] = 'abc'", "cannot start the processes: invalid literal for int"),
        ("sys.argv[0] = '-c'", "cannot start the other processes by a command that is no file (python -c): use csvi"),
    ],
)
def test_processes_that_cannot_be_started_are_one_sentence(start_first, tmp_path, before, message):
    first = start_first("", before)
    first.join(30)
    assert first.exitcode == 1
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"csvi train: {message}")
    assert said.count("\n") == 1


def test_a_port_that_another_program_has_is_one_sentence(ranks, settings, start_csvi, tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        variables = ranks.environment(2)[0] | {"MASTER_PORT": str(taken.getsockname()[1])}
        before = f"os.environ.update({variables})\nos.dup2(os.open({str(tmp_path / 'said')!r}, 577, 0o600), 2)"
        first = start_csvi(*arguments(settings, tmp_path, tmp_path / "run", "--devices=2"), before=before)
        first.join(30)
    assert first.exitcode == 1
    said = (tmp_path / "said").read_text()
    assert "csvi train: cannot start the processes: " in said
    assert "EADDRINUSE" in said
    assert "Traceback" not in said


def break_an_image(settings, folder):
    root = shutil.copytree(settings.data.root, folder / "broken")
    (root / "cam1/0001/0001.jpg").write_bytes(b"no image")
    settings.data.root, settings.data.cache = str(root), str(folder / "cache")


def ask_for_too_many(settings, folder):
    settings.train.global_identities = 200


def ask_for_many_steps(settings, folder):
    settings.train.epochs, settings.train.validate_every = 10_000, 0


BAD_LOSS = """
import csvi.train.loop
csvi.train.nonfinite.AT_MOST = 3

def spoiled(fabric, method, wrapped, optimizer, batch, step, *rest, train_step=csvi.train.loop.train_step):
    if fabric.global_rank == 1 and step >= 2:
        hook = lambda method, inputs, terms: handle.remove() or terms | {"center": terms["center"] + float("inf")}
        handle = method.register_forward_hook(hook)
    return train_step(fabric, method, wrapped, optimizer, batch, step, *rest)

csvi.train.loop.train_step = spoiled
"""
"""The second process has a loss that is not finite from the third step on; its gradient is as it should be."""


@pytest.mark.slow
@pytest.mark.parametrize("on_nonfinite", ["stop", pytest.param("skip", marks=pytest.mark.long)])
def test_a_bad_loss_of_one_process_is_one_of_them_all(ranks, settings, tmp_path, on_nonfinite):
    run = tmp_path / "run"
    settings.train.on_nonfinite, settings.train.validate_every, settings.train.epochs = on_nonfinite, 0, 3
    settings.train.gather = settings.train.sync_batchnorm = False
    status, said = ranks.csvi_ends(
        *[arguments(settings, tmp_path, run, "--devices=2")] * 2, stderr=tmp_path / "said", code=BAD_LOSS
    )
    last = 3 if on_nonfinite == "stop" else 6  # the fourth one
    assert status == [1, 1], said
    assert f"process 1's loss of step {last} is not finite (its images are in {run / 'nonfinite.json'}" in said[0]
    assert f"the center loss of step {last} is not finite" in said[1]
    assert json.loads((run / "nonfinite.json").read_text())["processes"] == [1]
    position = torch.load(run / "last.ckpt", weights_only=True)["position"]
    assert position["epoch"] == (last - 1) // 2  # whole epochs of two steps before
    assert position["skipped"] == [False] * 2 + [True] * (2 * position["epoch"] - 2)
    assert [line["step"] for line in lines(run) if "train/skipped" in line] == list(range(3, last))
    assert [line["step"] for line in lines(run)] == list(range(1, last))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "others", "status", "message"),
    [
        (break_an_image, [], 1, "0001.jpg"),
        pytest.param(ask_for_too_many, [], 1, "a batch of 2 processes needs 200", marks=pytest.mark.long),
        (ask_for_many_steps, ["--max_time=3s"], 75, "stopped after"),
    ],
)
def test_what_ends_all_processes_the_first_one_says(
    ranks, settings, tmp_path, real_trunk, change, others, status, message
):
    change(settings, tmp_path)
    of_each = arguments(settings, tmp_path, tmp_path / "run", "--devices=2", *others)
    first, second = ranks.csvi(of_each, of_each, stderr=tmp_path / "said")
    first.join(60)
    second.terminate()  # as torchrun does
    second.join(60)
    said = [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)]
    assert first.exitcode == status, said
    assert second.exitcode == 75  # ended by SIGTERM, or stopped
    assert said[0].splitlines()[-1].startswith("csvi train: ")
    assert said[0].count(message) == 1
    assert "lost" not in said[0]
    assert said[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacks", "what"),
    [
        ("cam1/0001/0001.jpg", "training images"),  # as a copy that is older
        pytest.param("cam2/0009/0001.jpg", "validation images", marks=pytest.mark.long),
    ],
)
def test_processes_with_other_images_are_told(ranks, settings, tmp_path, lacks, what):
    other = tmp_path / "other"
    shutil.copytree(settings.data.root, other)
    for path in other.glob(lacks):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    settings.train.global_identities = 4
    own = arguments(settings, tmp_path, tmp_path / "run", "--devices=2")
    status, said = ranks.csvi_ends(own, [*own, f"--data.root={other}"], stderr=tmp_path / "said")
    assert status == [1, 1], said
    for words in said:
        assert f"process 1 has other {what} than the first one: dataset and settings must be the same on all" in words
        assert "Traceback" not in words
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.long
def test_processes_with_other_settings_are_told(ranks, settings, tmp_path):
    own = arguments(settings, tmp_path, tmp_path / "run", "--devices=2")
    status, said = ranks.csvi_ends(own, [*own, "--data.images=2", "--data.workers=1"], stderr=tmp_path / "said")
    assert status == [1, 1], said
    assert all("process 1 has other data.images than the first one" in words for words in said)


def test_only_with_a_global_batch_is_a_run_resumed_on_another_number_of_processes(settings):
    before = flatten(settings)
    settings.devices = 2
    check_resumable(settings, before, Path("RUN"))
    settings.train.global_identities = 0
    with pytest.raises(CsviError, match=r"cannot resume RUN on other processes \(devices was 1\).*global_identities"):
        check_resumable(settings, before | {"train.global_identities": 0}, Path("RUN"))


@pytest.mark.parametrize(
    ("train", "devices", "message"),
    [
        ({"global_identities": 7}, 2, "global_identities is 7: it must be a multiple of the 2 processes"),
        ({"global_identities": 16, "accumulate": 3}, 2, "accumulate is 3: it must divide the 8 identities of a proc"),
        ({"accumulate": 16}, 1, "accumulate is 16: it must divide the 8 identities"),
    ],
)
def test_a_batch_is_divided_equally(train, devices, message):
    with pytest.raises(CsviError, match=message):
        Config(find_method("baseline").Settings(), train=TrainConfig(**train), devices=devices)


def test_the_learning_rate_and_the_batch_of_each_process_are_those_that_are_set():
    config = Config(find_method("baseline").Settings(), train=TrainConfig(global_identities=32), devices=2, nodes=2)
    assert (config.identities_each, config.data.identities, config.train.lr) == (8, 8, 0.01)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_gradient_of_the_batch_but_for_batch_norms(parts):
    """Identity, hetero-center, co-segmentation and mask losses, also where it is a sum over identities."""
    for settings in ({}, {"mask_channels": "identity", "center_reduction": "mean"}):
        method = built("coseg", **settings).eval()  # batch norms as they are
        batch = batch_of(method)._replace(has_mask=None)
        whole = trained(alone(), copy.deepcopy(method), [batch])
        torch.testing.assert_close(trained(alone(), method, [batch], parts=parts), whole, rtol=1e-6, atol=1e-9)


def test_micro_batches_hold_all_images_of_their_identities_in_order():
    batch = batch_of(built("caj"))
    first, second = in_parts(batch, 2)
    assert sorted(first.identity.unique().tolist() + second.identity.unique().tolist()) == [0, 1, 2, 3]
    for part in (first, second):
        assert len(part.image) == len(batch.image) // 2
        assert part.modality.tolist() == sorted(part.modality.tolist())
    assert len(in_parts(batch, 1)) == 1


def test_a_sum_over_identities_is_that_of_the_whole_batch():
    features, identity = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 4 // 2
    labels = identity, torch.arange(8) // 4
    with part_of_batch(3):
        in_three = hetero_center_loss(features, *labels)
    torch.testing.assert_close(in_three, 3 * hetero_center_loss(features, *labels))


@pytest.mark.parametrize("name", ["coseg", "agw", "deen", "hc", "mtl", "mpanet"])
def test_a_step_with_blocks_that_are_computed_again_is_the_same(name):
    plain = built(name)
    frugal = copy.deepcopy(plain)
    batches = [batch_of(plain, seed) for seed in range(2)]
    checkpoint_activations(frugal)
    calls = count_calls(frugal)
    expected, found = trained(alone(), plain, batches), trained(alone(), frugal, batches)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert frugal.state_dict().keys() == plain.state_dict().keys()
    assert set(calls.values()) == {4}  # twice a step


def count_calls(method):
    """How often the convolution of each block of the backbone is computed."""
    calls = {}
    for name, layer in method.net.backbone.named_modules():
        if "block" in name and name.endswith(".0") and isinstance(layer, nn.Conv2d):
            calls[name] = 0

            def count(*_, name=name):
                calls[name] += 1

            layer.register_forward_hook(count)
    assert calls
    return calls


def test_blocks_of_a_transformer_are_computed_again_on_the_same_random_numbers():
    gradients = []
    for frugal in (False, True):
        torch.manual_seed(0)
        vit = VisionTransformer(16, 28, dim=8, depth=2, heads=2, dropout=0.5)
        if frugal:
            checkpoint_activations(vit)
        vit(torch.ones(2, 3, 16, 28)).sum().backward()
        gradients.append([parameter.grad for parameter in vit.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_compiled_blocks_are_computed_again_too():
    """On the same random numbers, and running statistics are updated once."""
    found, kept = [], []
    for frugal in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        vit = VisionTransformer(16, 28, dim=8, depth=2, heads=2, dropout=0.5)
        vit.blocks[1].norm2 = RowNorm(8)
        if frugal:
            checkpoint_activations(vit)
            vit.compile(backend="aot_eager")
        parameters, of_step = {parameter.data_ptr() for parameter in vit.parameters()}, set()

        def keep(tensor, parameters=parameters, of_step=of_step):
            if tensor.is_floating_point() and tensor.data_ptr() not in parameters:
                of_step.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            vit(torch.randn(8, 3, 16, 28)).square().sum().backward()
        kept.append(len(of_step))
        found.append(([parameter.grad for parameter in vit.parameters()], list(vit.buffers())))
    torch.testing.assert_close(*found)
    assert kept[1] < kept[0] / 2


COMPILED = """
import functools, csvi.train.loop
torch.nn.Module.compile = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
csvi.train.loop.check_compiler = lambda device: None
"""


@pytest.mark.long
@pytest.mark.parametrize("also", ["", "gather", "sync_batchnorm", "checkpoint_activations"])
def test_two_processes_train_compiled(ranks, settings, tmp_path, also):
    """Traced as for compiling; a step is then the same."""
    settings.train.gather, settings.train.sync_batchnorm, settings.train.validate_every = False, False, 0
    others = ["--devices=2", *([f"--train.{also}=true"] if also else [])]
    for name, compiled in ("plain", "false"), ("compiled", "true"):
        own = arguments(settings, tmp_path, tmp_path / name, *others, f"--train.compile={compiled}")
        status, said = ranks.csvi_ends(own, own, stderr=tmp_path / name, code=COMPILED, within=300)
        assert status == [0, 0], said
    assert "compiled in step 1, which took" in said[0]
    found, expected = ([line["train/loss"] for line in lines(tmp_path / name)] for name in ("compiled", "plain"))
    assert found == pytest.approx(expected, rel=1e-4)


class RowNorm(nn.BatchNorm1d):
    """A batch norm of tokens (B, T, D)."""

    def forward(self, tokens):
        return super().forward(tokens.flatten(0, 1)).view_as(tokens)


def test_tf32_is_asked_for_only_where_it_is_set(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    make_fabric("32-true")
    assert asked == []
    make_fabric("32-true", tf32=True)
    assert asked == ["high"]
