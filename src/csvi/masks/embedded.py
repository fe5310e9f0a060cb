"""The segmenter that comes with the package: trained on synthetic people alone (`csvi masks train`)."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.special import expit

from csvi.data.batch import Batch, prepare
from csvi.errors import CsviError, in_one_line
from csvi.masks.network import SegmenterNet
from csvi.masks.segmenter import Segmenter
from csvi.writing import replacing

FILE = Path(__file__).with_name("embedded.safetensors")
"""The weights in half precision."""
HEIGHT, WIDTH = 192, 96
"""Size in pixels that crops are brought to."""
BATCH = 32


class Embedded(Segmenter):
    """MobileNetV2 with a small decoder, on an accelerator where there is one.

    Args:
        file: weights that `csvi masks train` wrote; by default those of the package.

    Attributes:
        facts: what the file says of itself: how it was trained, and its scores on synthetic images.

    Raises:
        CsviError: the file is missing, or none of this network.
    """

    name = "embedded"

    def __init__(self, file: Path = FILE):
        try:
            with safe_open(file, "pt") as opened:
                state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (it is no mapping)
                self.facts = json.loads((opened.metadata() or {})["facts"])
            net = SegmenterNet()
            net.load_state_dict(state)  # which makes them 32 bits again
            self.sureness, self.usual = (float(self.facts[name]) for name in ("sureness", "sureness_rendered"))
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CsviError(f"{file} holds no segmenter of csvi masks train: {in_one_line(error)}") from error
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = net.eval().to(self.device).to(memory_format=torch.channels_last)

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute probabilities at 192 x 96 pixels, and interpolate them to the size of each image."""
        found: list[np.ndarray] = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            logits = self._logits(np.stack([_small(image) for image in batch]))
            for image, logit in zip(batch, logits, strict=True):
                size = image.shape[1], image.shape[0]
                found.append(expit(np.asarray(Image.fromarray(logit).resize(size, Image.Resampling.BILINEAR))))
        return found

    @torch.inference_mode()
    def _logits(self, images: np.ndarray) -> np.ndarray:
        """Compute logits, (B, H, W) float32, of images (B, H, W, 3) uint8."""
        return self.net(prepare(Batch.of(images), self.device).image)[:, 0].cpu().numpy()


def save_segmenter(net: SegmenterNet, facts: dict[str, object], file: Path) -> None:
    """Write a network in half precision, with facts about it, that `Embedded` reads."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in net.state_dict().items()
    }
    with replacing(file) as partial:
        partial.write_bytes(save(state, {"facts": json.dumps(facts)}))


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
