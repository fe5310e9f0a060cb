"""`last.ckpt`: all of a run comes back, and what is not one is refused."""

import pickle
import random

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from csvi.errors import CsviError
from csvi.train.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def built(fabric, seed=0, width=3):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4))
    return fabric.setup(network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9))


def train(fabric, network, optimizer, steps, seed):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        fabric.backward(network(torch.randn(5, 3)).square().sum())
        optimizer.step()


@pytest.fixture
def saved(fabric, tmp_path):
    network, optimizer = built(fabric)
    train(fabric, network, optimizer, 3, seed=1)
    save_checkpoint(fabric, tmp_path / "last.ckpt", network, optimizer, 4, 7, [3, 5])
    return network, optimizer, tmp_path / "last.ckpt"


def test_network_optimiser_and_position_come_back(fabric, saved):
    network, optimizer, file = saved
    other, other_optimizer = built(fabric, seed=9)
    assert load_checkpoint(fabric, file, other, other_optimizer, [3, 5]) == (4, 7)
    for some in ((network, optimizer), (other, other_optimizer)):
        train(fabric, *some, 3, seed=2)  # the momentum counts, and the running statistics
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_broken_off_write_leaves_the_checkpoint_before(fabric, saved, monkeypatch):
    network, optimizer, file = saved
    before = file.read_bytes()

    def save(path, state):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(fabric, "save", save)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(fabric, file, network, optimizer, 5, 0, [3, 5])
    assert file.read_bytes() == before


def test_a_new_checkpoint_replaces_the_one_before_and_leaves_nothing_else(fabric, saved):
    network, optimizer, file = saved
    save_checkpoint(fabric, file, network, optimizer, 5, 0, [3, 5])
    assert list(file.parent.iterdir()) == [file]
    assert load_checkpoint(fabric, file, network, optimizer, [3, 5]) == (5, 0)


@pytest.mark.parametrize("identities", [[3], [5, 3], [3, 6], []])
def test_other_identities_are_refused(fabric, saved, identities):
    network, optimizer, file = saved
    with pytest.raises(CsviError, match=r"last\.ckpt was trained on other identities"):
        load_checkpoint(fabric, file, network, optimizer, identities)


def test_another_network_is_refused_and_the_difference_named(fabric, saved):
    message = r"last\.ckpt does not fit the settings of this run: .*size mismatch for 0\.weight"
    with pytest.raises(CsviError, match=message) as caught:
        load_checkpoint(fabric, saved[2], *built(fabric, width=2), [3, 5])
    assert "\n" not in str(caught.value)


def test_damaged_checkpoints_are_refused(fabric, saved):
    network, optimizer, file = saved
    whole, rng = file.read_bytes(), random.Random(0)
    cut = [whole[:length] for length in range(0, len(whole), 97)]
    for content in [b"", b"something else", *cut, *(rng.randbytes(40) for _ in range(30))]:
        file.write_bytes(content)
        with pytest.raises(CsviError, match=r"last\.ckpt is damaged or no checkpoint of csvi"):
            load_checkpoint(fabric, file, network, optimizer, [3, 5])


def test_another_file_of_torch_is_refused(fabric, saved):
    network, optimizer, file = saved
    for content in ({"a": torch.ones(2)}, [1, 2]):
        torch.save(content, file)
        with pytest.raises(CsviError, match=r"last\.ckpt is damaged or no checkpoint of csvi"):
            load_checkpoint(fabric, file, network, optimizer, [3, 5])


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("save", [torch.save, lambda what, file: file.write_bytes(pickle.dumps(what, protocol=2))])
def test_code_in_a_checkpoint_does_not_run(fabric, saved, save):
    network, optimizer, file = saved
    save({"network": Trap(file.parent / "ran")}, file)
    with pytest.raises(CsviError, match=r"last\.ckpt is damaged or no checkpoint of csvi"):
        load_checkpoint(fabric, file, network, optimizer, [3, 5])
    assert not (file.parent / "ran").exists()
