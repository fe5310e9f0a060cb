"""The embedded segmenter: MobileNetV2 with a small decoder, for crops of one person in any spectrum."""

import itertools

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1, 3, 6, 13, 17)
"""Blocks of MobileNetV2 whose output the decoder reads: strides 2, 4, 8, 16, 32."""
CHANNELS = (16, 24, 32, 96, 320)
"""Channels of these outputs."""
WIDTHS = (16, 32, 64, 64, 64)
"""Channels that they are brought to."""


class SegmenterNet(nn.Module):
    """MobileNetV2 without its classifier, and a decoder from its coarsest features to half the image's resolution.

    At each step the coarser features are refined by a separable convolution, doubled in size and added to the finer
    ones; the mean over the whole image is added to the coarsest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torchvision.models.mobilenet_v2(weights=None).features[: TAPS[-1] + 1]
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
            for channels, width in zip(CHANNELS, WIDTHS, strict=True)
        )
        self.context = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.refine = nn.ModuleList(_separable(coarse, fine) for fine, coarse in itertools.pairwise(WIDTHS))
        self.last = nn.Sequential(_separable(WIDTHS[0], WIDTHS[0]), nn.ReLU(), nn.Conv2d(WIDTHS[0], 1, 1))

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Fill the encoder from the state dict of torchvision's network, whose last block is not used.

        Raises:
            KeyError: a tensor is missing.
        """
        state = {key.removeprefix("features."): tensor for key, tensor in state.items()}
        for key, tensor in self.encoder.state_dict().items():
            if not key.endswith("num_batches_tracked"):  # older files lack these counters, and nothing depends on them
                tensor.copy_(state[key])

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logit of a person at each pixel.

        Args:
            image: (B, 3, H, W), normalised by ImageNet's mean and standard deviation.

        Returns:
            (B, 1, H, W).
        """
        features: list[Tensor] = []
        x = image
        for number, block in enumerate(self.encoder):
            x = block(x)
            if number in TAPS:
                features.append(self.lateral[len(features)](x))
        x = features.pop()
        x = F.relu(x + self.context(x.mean((2, 3)))[..., None, None])
        for refine in reversed(self.refine):
            finer = features.pop()
            x = F.relu(F.interpolate(refine(x), finer.shape[2:], mode="bilinear") + finer)
        return F.interpolate(self.last(x).float(), image.shape[2:], mode="bilinear")


def _separable(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
    )
