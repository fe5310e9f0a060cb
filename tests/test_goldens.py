"""What the methods of the paper computed before they were moved into rooms of their own, and compute still.

`python tests/test_goldens.py` records goldens.json anew: only when a change of results is meant.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from csvi.config import Config, DataConfig, TrainConfig
from csvi.data.batch import Batch
from csvi.data.records import ImageRecord, Modality
from csvi.data.sampler import CrossModalitySampler
from csvi.data.views import Erase, Flip, Grayscale, Shift, augment, draw, standard_views
from csvi.methods import build_method, find_method
from csvi.train.optimizer import build_optimizer, set_learning_rate

pytestmark = pytest.mark.usefixtures("real_trunk")

FILE = Path(__file__).with_name("goldens.json")
VARIANTS = ("baseline", "select", "segment", "decode", "coseg", "coseg+")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
TOLERANCE = {"float64": 1e-10, "float32": 2e-3}
"""On other processors than the one that recorded, whose kernels add in another order (measured: 3e-4 in float32)."""
HEIGHT, WIDTH = 48, 40  # 16 does not divide the width


def machine():
    """Where sums are added in the same order."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{models[:1]} {torch.backends.cpu.get_cpu_capability()} {torch.__version__}"


def method_of(variant, literal):
    """A method as training builds it, and its settings; `literal` reads Eq. 7, 10 and 14 in another way."""
    torch.manual_seed(0)
    settings = {"segmentation_weight": 20.0, "widths": (8, 4), "contrast_weight": 0.0, "decoder": "paper"}
    if literal:
        settings = {
            "center_weight": 1.0, "center_squared": False, "center_normalize": False, "center_reduction": "mean",
            "center_ramp": 2, "widths": (8, 4), "mask_channels": "identity", "weights_from": "leave-one-out",
            "head_weight": 0.3,
        }  # fmt: skip
    kind = find_method(variant).Settings
    known = {field.name for field in dataclasses.fields(kind)}
    settings = kind(
        backbone="resnet18", parts=3, part_dim=8, **{name: value for name, value in settings.items() if name in known}
    )
    train = TrainConfig(lr=0.01, lr_pretrained=0.5, warmup=3)
    config = Config(settings, data=DataConfig(height=HEIGHT, width=WIDTH), train=train)
    return build_method(config, identities=4), config


def batch_of(dtype):
    """Two visible and two infrared images of each of four people; means of masks are exact."""
    generator = torch.Generator().manual_seed(1)
    identity = torch.arange(4).repeat_interleave(2).repeat(2)
    return Batch(
        image=torch.randn(16, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64).to(dtype),
        identity=identity,
        modality=torch.arange(2).repeat_interleave(8),
        mask=torch.randint(0, 257, (16, 1, HEIGHT, WIDTH), generator=generator).to(dtype) / 256,
    )


def two_steps(variant, dtype, literal=False):
    """Loss terms of two steps; embeddings, masks on the decoder's grid, and weights after them."""
    method, config = method_of(variant, literal)
    method.to(dtype).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(method.groups(config.train), config.train)
    batch = batch_of(dtype)
    found = {"terms": []}
    for step in range(2):
        set_learning_rate(optimizer, step, 10, config.train)
        terms = method(batch, step)
        found["terms"].append({name: float(term.detach()) for name, term in terms.items()})
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    method.eval()
    with torch.no_grad():
        found["embedding"] = summary(method.net(batch.image, batch.modality))
        found["masks"] = None
        if method.predicts_masks:
            logits = method.mask_logits(batch)
            masks = logits.sigmoid() if logits.shape[1] == 1 else 1 - logits.softmax(1)[:, :1]
            found["masks"] = summary(masks)
    state = [tensor for tensor in method.state_dict().values() if tensor.is_floating_point()]
    found["weights"] = {
        "digest": hashlib.sha256("".join(sorted(digest(tensor) for tensor in state)).encode()).hexdigest()[:16],
        "tensors": len(state),
        "norm": float(torch.stack([tensor.double().norm() for tensor in state]).norm()),
    }
    return found


def digest(tensor):
    """Of shape and bytes, whatever the tensor is called."""
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()).hexdigest()


def summary(tensor):
    return {"digest": digest(tensor)[:16], "shape": list(tensor.shape), "first": tensor.flatten()[:6].tolist()}


def records():
    return [
        ImageRecord(f"{person}/{modality}/{n}.jpg", person, 1 + modality, Modality(modality))
        for person in range(7)
        for modality in (0, 1)
        for n in range(3 + person % 3)
    ]


def first_draws():
    """Images and seeds of the first batches of two epochs, and of one of two processes."""

    def images_and_seeds(batch):
        return [[sample.image, sample.seed] for sample in batch]

    sampler = CrossModalitySampler(records(), identities=3, images=2, seed=5)
    found = {}
    for epoch in (0, 1):
        sampler.start(epoch)
        found[f"epoch {epoch}"] = [images_and_seeds(batch) for batch in list(sampler)[:2]]
    other = CrossModalitySampler(records(), identities=3, images=2, seed=5, rank=1, world_size=2)
    found["second process"] = [images_and_seeds(batch) for batch in list(other)[:1]]
    return found


def first_variations():
    """What is done to the first images, and the bytes that come of it."""
    views = standard_views(DataConfig(height=24, width=16, pad=4, flip=0.5, erase=0.5, grayscale=0.5))
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(24, 24, 16, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    masks = torch.from_numpy(rng.integers(256, size=(24, 1, 24, 16), dtype=np.uint8))
    found = {"drawn": [], "image": [], "mask": []}
    for seed in range(24):
        (view,) = views[Modality(seed % 2)]
        drawn = {type(operation): values for operation, values in draw(view, seed, 24, 16)}
        box = drawn.get(Erase) and list(drawn[Erase])
        found["drawn"].append([Flip in drawn, *drawn[Shift], Grayscale in drawn, box])
        image, mask = augment(view, images[seed], masks[seed], seed)
        found["image"].append(digest(image)[:16])
        found["mask"].append(digest(mask)[:16])
    return found


def case(variant, dtype, literal):
    return f"{variant} {dtype}{' literal' if literal else ''}"


CASES = [
    (variant, dtype, literal)
    for variant in VARIANTS
    for dtype in DTYPES
    for literal in (False, True)
    if not literal or variant in ("baseline", "decode", "coseg")
]


def measure():
    return {
        "machine": machine(),
        "steps": {case(v, d, literal): two_steps(v, DTYPES[d], literal) for v, d, literal in CASES},
        "draws": first_draws(),
        "variations": first_variations(),
    }


def close(found, golden, tolerance):
    """The same numbers, in the same places; digests are left to `equal`."""
    if isinstance(golden, dict):
        assert found.keys() == golden.keys()
        for name in golden:
            if name != "digest":
                close(found[name], golden[name], tolerance)
    elif isinstance(golden, list):
        assert len(found) == len(golden)
        for one, other in zip(found, golden, strict=True):
            close(one, other, tolerance)
    elif golden is None:
        assert found is None
    else:
        assert found == pytest.approx(golden, rel=tolerance, abs=tolerance)


@pytest.fixture(scope="module")
def goldens():
    return json.loads(FILE.read_text())


@pytest.mark.parametrize(
    ("variant", "dtype", "literal"),
    [
        pytest.param(*case, marks=() if case[1] == "float32" else pytest.mark.long if case[2] else pytest.mark.slow)
        for case in CASES
    ],
)
def test_two_steps_are_as_they_were(goldens, variant, dtype, literal):
    found, golden = two_steps(variant, DTYPES[dtype], literal), goldens["steps"][case(variant, dtype, literal)]
    close(found, golden, TOLERANCE[dtype])
    if goldens["machine"] == machine() and torch.get_num_threads() == 1:
        assert found == golden  # bit for bit


def test_the_same_images_are_drawn(goldens):
    assert first_draws() == goldens["draws"]


def test_they_are_augmented_alike(goldens):
    assert first_variations() == goldens["variations"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(measure(), indent=1) + "\n")
    sys.stdout.write(f"written: {FILE}\n")
