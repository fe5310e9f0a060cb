"""The folder of a run: one process at a time, and nothing in it is lost to whatever is wrong."""

import dataclasses
import errno
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from csvi import lock
from csvi.cli import main
from csvi.config import flatten
from csvi.errors import CsviError
from csvi.runs import load_config, save_config
from csvi.runs.folder import check_room, check_same_settings, locked
from csvi.train.loop import train

pytestmark = pytest.mark.usefixtures("real_trunk")  # as in the processes that are started


@pytest.fixture(scope="module")
def start():
    """Run code in a process of its own, forked from one that has imported torch already.

    Returns the process and a connection, which the code finds as `connection`, beside what else is given to it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["csvi.train.loop", "csvi.commands.train", "csvi.runs.settings", "csvi.runs.run"])

    def started(code, **names):
        ours, theirs = context.Pipe()
        process = context.Process(target=exec, args=(code, names | {"connection": theirs}))
        process.start()
        theirs.close()
        return process, ours

    return started


HOLD = """
from pathlib import Path
from csvi.runs.folder import check_room, check_same_settings, locked
with locked(Path(run)):
    connection.send("locked")
    connection.recv()
"""


@pytest.fixture
def holder(start, tmp_path):
    """Another process that trains in RUN."""
    process, connection = start(HOLD, run=tmp_path / "run")
    assert connection.recv() == "locked"
    yield process
    process.kill()
    process.join()


def run_csvi(*arguments, capsys):
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Where a run is kept that many tests begin with."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(config, shelf, tmp_path):
    """A run of one epoch, and the settings of two."""
    if not (shelf / "run").exists():
        train(config, shelf / "run")
    shutil.copytree(shelf / "run", tmp_path / "run")
    config.train.epochs = 2
    save_config(config, tmp_path / "settings.yaml")
    return tmp_path / "run"


def resumed(run, capsys):
    arguments = ["train", "--config", run.parent / "settings.yaml", "--run", run, "--resume=auto"]
    return run_csvi(*arguments, capsys=capsys)


def contents(run):
    return {file.name: file.read_bytes() for file in run.iterdir() if file.name != ".lock"}


def test_a_folder_in_which_another_process_trains(config, holder, tmp_path):
    for resume in (None, "auto"):
        with pytest.raises(CsviError, match=rf"run is being trained by process {holder.pid} on \S+: wait for it"):
            train(config, tmp_path / "run", resume)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {".lock"}


def test_a_killed_process_holds_no_lock(holder, tmp_path):
    holder.kill()
    holder.join()
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / ".lock").read_text()


def test_children_of_a_killed_process_hold_no_lock(start, tmp_path):
    """Loader processes outlive a killed run by some seconds."""
    code = "import os\n" + HOLD.replace("    connection.recv()", "    os.fork()\n    connection.recv()")
    process, connection = start(code, run=tmp_path)
    assert connection.recv() == "locked"
    process.kill()
    process.join()
    with locked(tmp_path):
        pass
    connection.close()


def test_where_nothing_can_be_locked_training_works(config, tmp_path, monkeypatch, caplog):
    class Unsupported:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def lockf(file, flags):
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "fcntl", Unsupported)
    train(config, tmp_path / "run")
    assert "let no other process write there" in caplog.text
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_run_that_is_being_trained_can_be_evaluated(trained, holder, capsys):
    assert run_csvi("evaluate", trained, capsys=capsys)[0] == 0
    assert run_csvi("report", trained, capsys=capsys)[0] == 0
    assert holder.is_alive()


def test_a_kill_before_the_first_checkpoint(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("csvi.train.loop.save_checkpoint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", resume="auto")
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()
    train(config, tmp_path / "run", resume="auto")
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written(config, tmp_path, monkeypatch, capsys, error):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    save_config(config, tmp_path / "settings.yaml")
    monkeypatch.setattr(Path, "mkdir", refuse)
    status, message = run_csvi("train", "--config", tmp_path / "settings.yaml", "--run=/none", capsys=capsys)
    assert status == 1
    assert message == f"csvi train: cannot write the run to /none: {os.strerror(error)}\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_run(trained, capsys):
    before = contents(trained)
    trained.chmod(0o500)
    status, message = resumed(trained, capsys)
    trained.chmod(0o700)
    assert status == 1
    assert "cannot write" in message
    assert contents(trained) == before


FULL = """
import io, resource, sys, torch
from csvi.cli import main
sys.stdout, sys.stderr = io.StringIO(), io.StringIO()  # which are no files
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))
connection.send((main(arguments), sys.stderr.getvalue()))
"""


@pytest.mark.parametrize(("share", "what"), [(0.5, "last.ckpt"), (0.1, "the network"), (0, "the run")])
def test_no_room_for_a_file(start, trained, tmp_path, share, what, capsys):
    """A limit on the length of files, as a full disk: what cannot be written is named, what was there stays."""
    length = int(share * (trained / "last.ckpt").stat().st_size)
    before = contents(trained)
    arguments = ["train", f"--config={tmp_path}/settings.yaml", f"--run={trained}", "--resume=auto"]
    process, connection = start(FULL, length=length, arguments=arguments)
    status, said = connection.recv()
    process.join()
    assert status == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("csvi train: cannot write")
    assert what in said.splitlines()[-1]
    for name in ("last.ckpt", "method.safetensors", "config.json"):
        assert (trained / name).read_bytes() == before[name] or (what == "last.ckpt" and name != what)
    assert not list(trained.glob(".*partial"))
    assert not (trained / ".saving").exists()
    assert resumed(trained, capsys)[0] == 0


@pytest.mark.slow
def test_a_full_disk(config, tmp_path):
    """Where a small disk can be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a small disk")
    try:
        train(config, disk / "run")
        before = contents(disk / "run")
        free = os.statvfs(disk)
        (disk / "other").write_bytes(bytes(free.f_bavail * free.f_frsize - 2**20))
        config.train.epochs = 2
        with pytest.raises(CsviError, match=r"cannot write .*: .*No space left on device"):
            train(config, disk / "run", resume="auto")
        assert (disk / "run" / "last.ckpt").read_bytes() == before["last.ckpt"]
        (disk / "other").unlink()
        train(config, disk / "run", resume="auto")
        assert torch.load(disk / "run" / "last.ckpt", weights_only=True)["position"]["epoch"] == 2
    finally:
        subprocess.run(["umount", disk], check=True)


def test_settings_of_another_version(trained, capsys):
    file = trained / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(settings | {"method": settings["method"] | {"triplet": 1.0}}))
    before = contents(trained)
    for status, message in (resumed(trained, capsys), run_csvi("evaluate", trained, capsys=capsys)):
        assert status == 1
        assert message.count("\n") == 1
        assert "config.yaml is not a configuration of csvi" in message
        assert "triplet" in message
    assert contents(trained) == before


def test_settings_of_an_older_version(trained, capsys):
    """What it did not know has its default."""
    file = trained / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    del settings["train"]["checkpoint_every"], settings["train"]["on_nonfinite"]
    file.write_text(yaml.safe_dump(settings))
    assert resumed(trained, capsys)[0] == 0
    assert load_config(file).train.checkpoint_every == 5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"backbone": "resnet18"}, "method.backbone was mobilenet_v2"),
        ({"part_dim": 8}, "method.part_dim was 16"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_checkpoint_of_another_network(trained, config, tmp_path, capsys, change, word, alone):
    if alone:  # it knows its settings by itself
        (trained / "last.ckpt").rename(tmp_path / "last.ckpt")
    checkpoint = tmp_path / "last.ckpt" if alone else trained / "last.ckpt"
    before = checkpoint.read_bytes()
    for name, value in change.items():
        setattr(config.method, name, value)
    save_config(config, tmp_path / "other.yaml")
    arguments = ["train", "--config", tmp_path / "other.yaml", "--run", tmp_path / "new", "--resume", checkpoint]
    status, message = run_csvi(*arguments, capsys=capsys)
    assert status == 1
    assert message.count("\n") == 1
    assert word in message
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_of_other_classes(trained, sysu_root, tmp_path, capsys):
    root = shutil.copytree(sysu_root, tmp_path / "root")
    (root / "exp" / "train_id.txt").write_text("1,2,3,4,5,6,7,9")
    (root / "exp" / "val_id.txt").write_text("8,10,11,12")
    before = contents(trained)
    arguments = ["--config", tmp_path / "settings.yaml", "--data.root", root, "--run", trained, "--resume=auto"]
    status, message = run_csvi("train", *arguments, capsys=capsys)
    assert status == 1
    assert contents(trained) == before
    assert "was trained on other identities than these data have" in message.splitlines()[-1]


def test_a_run_is_not_mixed_with_other_files(config, tmp_path):
    (tmp_path / "thesis.tex").touch()
    for folder, what in ((tmp_path, "thesis.tex"), (config.data.root, "cam1")):
        with pytest.raises(CsviError, match=rf"{folder} holds {what}, which no run has: name .* with --run"):
            train(config, folder)


def test_a_run_takes_a_folder_with_a_log_or_hidden_files_or_one_that_was_begun(tmp_path):
    for name in ("slurm-7.out", ".lock", ".nfs01"):
        (tmp_path / name).touch()
    check_room(tmp_path)
    for name in ("events.out.tfevents.1", "config.yaml"):
        (tmp_path / name).touch()
    check_room(tmp_path)


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(config, tmp_path):
    config.data.identities = 100
    with pytest.raises(CsviError, match="needs 100 identities"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(CsviError, match="needs 100 identities"):
        train(config, tmp_path / "own")
    assert [file.name for file in (tmp_path / "own").iterdir()] == [".lock"]


def test_what_cannot_be_resumed_says_how_else_it_is_used(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    save_config(config, run / "config.yaml")
    theirs = flatten(config)
    config.train = dataclasses.replace(config.train, epochs=9, schedule="cosine")
    config.data.root = "elsewhere"
    with pytest.raises(CsviError) as caught:
        check_same_settings(config, theirs | {"train.schedule": "cosine"}, run)
    assert str(caught.value) == (
        f"cannot resume {run} under other settings (train.epochs was 1; data.root was {theirs['data.root']}): start a "
        f"new run, or give its settings by --config {run}/config.yaml; --method.weights {run} begins a new run with "
        "its weights"
    )
    with pytest.raises(CsviError, match=rf"not with coseg: start a new run, or .* --config {run}/config\.yaml"):
        check_same_settings(config, {"method.name": "baseline"}, run)


def test_a_model_is_no_checkpoint_whatever_the_settings(config, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    config.seed = 9
    with pytest.raises(CsviError, match=r"model\.safetensors is damaged or no checkpoint of csvi: --resume takes auto"):
        train(config, tmp_path / "new", resume=str(tmp_path / "model.safetensors"))
