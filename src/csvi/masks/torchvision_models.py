"""Networks of torchvision that were trained on COCO, as segmenters. How good their masks are was not measured."""

from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from csvi.data.batch import MEAN, STD
from csvi.errors import CsviError
from csvi.masks.external import Description, Input, ModelFile, Output
from csvi.masks.runtimes import Graph, Port
from csvi.model.weights import download, read_state_dict

HEIGHT, WIDTH = 512, 256
"""Size in pixels that crops are brought to; the networks saw images of 520 and 800 pixels with people of any size."""


def torchvision_segmenter(name: str, file: Path | None = None) -> ModelFile:
    """Build a DeepLabV3 or a Mask R-CNN by its name in torchvision.

    Args:
        file: its weights, .pth or .safetensors; by default torchvision's download or what is in its cache.

    Raises:
        CsviError: the weights are missing, damaged, or those of another network.
    """
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if file is None:
        instead = f"get {weights.url} elsewhere and give the file, --segmenter {name}=FILE"
        state = download(weights, f"the weights of {name}", instead)
    else:
        state = read_state_dict(file)
    categories = weights.meta["categories"]
    person = categories.index("person")
    of_masks = name.startswith("maskrcnn")
    options = {"min_size": WIDTH, "max_size": HEIGHT} if of_masks else {}
    if any(key.startswith("aux_classifier.") for key in state):
        options["aux_loss"] = True
    net = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=len(categories), **options
    )
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise CsviError(f"{file or 'the download'} holds no weights of torchvision's {name}") from error
    size = HEIGHT, WIDTH
    description = (
        Description("", Input(size, "nchw"), Output("none"))  # the network normalises images itself
        if of_masks
        else Description("", Input(size, "nchw", mean=MEAN, std=STD), Output("softmax", channel=person))
    )
    network = MaskOfPerson(net, person) if of_masks else MapOfClasses(net)
    return ModelFile(name, description, TorchGraph(network))


class TorchGraph(Graph):
    """A network that makes maps (B, C, H, W) of images (B, 3, H, W), on an accelerator where there is one."""

    inputs = (Port("image", (1, 3, None, None), "float32"),)
    outputs = (Port("maps", (1, None, None, None), "float32"),)

    def __init__(self, network: nn.Module):
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def run(self, values: np.ndarray, output: int) -> np.ndarray:
        """Compute the maps of one image."""
        return self._network(torch.from_numpy(values).to(self._device)).cpu().numpy()


class MapOfClasses(nn.Module):
    """The logits of a semantic segmentation of torchvision."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits of all classes, (B, classes, H, W)."""
        return self.network(image)["out"]


class MaskOfPerson(nn.Module):
    """The mask of one person found by a Mask R-CNN: the surest of those whose box holds the middle of the image."""

    def __init__(self, network: nn.Module, person: int):
        super().__init__()
        self.network, self.person = network, person

    def forward(self, image: Tensor) -> Tensor:
        """Find that person in one image, (1, 3, H, W): probabilities (1, 1, H, W), 0 everywhere if there is nobody."""
        (found,) = self.network(list(image))
        left, top, right, bottom = found["boxes"].unbind(1)
        height, width = image.shape[2:]
        middle = (left <= width / 2) & (right >= width / 2) & (top <= height / 2) & (bottom >= height / 2)
        candidates = found["scores"] * (middle & (found["labels"] == self.person))
        if not candidates.any():
            return image.new_zeros(1, 1, height, width)
        return found["masks"][candidates.argmax()][None]
