"""A batch is one object from the loader to the network, wherever it goes on the way."""

import pickle

import pytest
import torch
from lightning_fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import v2

from csvi.data import batch as module
from csvi.data.batch import MEAN, STD, Batch, normalize, prepare
from csvi.model.two_stream import Route

CPU = torch.device("cpu")
IN_ORDER = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
MIXED = IN_ORDER[[0, 4, 1, 5, 2, 6, 3, 7]]


@pytest.fixture
def batch():
    """Eight coloured images, each with its red as its mask, and lying in memory as loaders give them."""
    torch.manual_seed(0)
    image = torch.randint(256, (8, 40, 20, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    view, has_mask = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0]), torch.arange(8) != 2
    return Batch(image, IN_ORDER, torch.arange(8), image[:, :1].contiguous(), view, has_mask)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert one is None or torch.equal(one, other)


def test_rows_of_a_batch_by_number_or_by_condition(batch):
    rows = torch.tensor([5, 2])
    some = batch.subset(rows)
    own = torch.tensor([0, 1]), torch.tensor([True, False])
    assert_equal(some, Batch(batch.image[rows], batch.modality[rows], rows, batch.mask[rows], *own))
    infrared = batch._replace(mask=None, view=None, has_mask=None).subset(batch.modality == 1)
    assert_equal(infrared, Batch(batch.image[4:], torch.ones(4, dtype=int), torch.arange(4, 8)))


def test_rows_of_a_prepared_batch_have_their_own_route(batch):
    prepared = prepare(batch, CPU)
    assert prepared.subset(batch.modality == 1).route == Route(0, 4, None)
    mixed = prepared.subset(torch.tensor([5, 2])).route
    assert (mixed.visible, mixed.order.tolist()) == (1, [1, 0])


@pytest.mark.parametrize("lies_as", [torch.contiguous_format, torch.channels_last])
def test_bytes_become_numbers_in_the_networks_memory_format(batch, lies_as):
    batch = batch._replace(image=batch.image.contiguous(memory_format=lies_as))
    found = prepare(batch, CPU)
    assert found.image.is_contiguous(memory_format=torch.channels_last)
    assert_equal(found._replace(route=None), normalize(batch))


@pytest.mark.parametrize(
    ("modality", "visible"),
    [(IN_ORDER, 4), (MIXED, 4), (torch.ones(8, dtype=int), 0)],
    ids=["in order", "mixed", "one"],
)
def test_a_prepared_batch_has_its_route(batch, modality, visible):
    route = prepare(batch._replace(modality=modality), CPU).route
    assert route.visible == visible
    assert (route.order is None) == (modality is not MIXED)
    if route.order is not None:
        assert modality[route.order].tolist() == IN_ORDER.tolist()


def test_preparation_does_not_wait_for_the_device(batch):
    """On a GPU that need not be there: its tensors have no values, and what would wait for one fails."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            found = prepare(batch._replace(modality=MIXED), torch.device("cuda"))
            assert {rows.device.type for rows in (*found[:-1], found.route.order)} == {"cuda"}
            with pytest.raises(DataDependentOutputException):
                prepare(found, torch.device("cuda"))  # modalities that are there already are asked for
    finally:
        module._mean_and_std.cache_clear()  # of tensors without values


@pytest.mark.parametrize("bare", [False, True])
def test_a_batch_stays_one_in_the_hands_of_others(batch, bare, monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda rows, *_: rows.clone())
    if bare:
        batch = Batch(*batch[:3])
    for found in (
        pickle.loads(pickle.dumps(batch)),
        move_data_to_device(batch, CPU),
        apply_to_collection(batch, torch.Tensor, torch.clone),
        pin_memory(batch),
        *DataLoader(Given(batch), batch_size=None, sampler=[0]),
        *DataLoader(Given(batch), batch_size=None, sampler=[0], num_workers=1),
    ):
        assert type(found) is Batch
        assert_equal(found, batch)
    prepared = prepare(batch._replace(modality=MIXED), CPU)
    moved = move_data_to_device(prepared, CPU)
    assert type(moved.route) is Route
    assert torch.equal(moved.route.order, prepared.route.order)


class Given(Dataset):
    def __init__(self, batch):
        self.batch = batch

    def __getitem__(self, index):
        return self.batch


def test_normalised_as_torchvision_does(batch):
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])(batch.image)
    found = normalize(batch)
    torch.testing.assert_close(found.image, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mask, batch.mask / 255)
    assert (found.image.dtype, found.mask.dtype) == (torch.float32, torch.float32)
    assert torch.equal(found.identity, batch.identity)
    assert found.image.is_contiguous(memory_format=torch.channels_last)


def test_images_of_any_memory_format_are_normalised(batch):
    planar = batch._replace(image=batch.image.contiguous())
    assert torch.equal(normalize(planar).image, normalize(batch).image)


def test_without_masks_images_are_normalised_the_same(batch):
    bare = normalize(batch._replace(mask=None))
    assert torch.equal(bare.image, normalize(batch).image)
    assert bare.mask is None


def test_numbers_stay_as_they_are(batch):
    numbers = normalize(batch)
    assert normalize(numbers) is numbers
