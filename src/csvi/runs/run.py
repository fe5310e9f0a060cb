"""A run, opened: its settings, dataset, network, training set and embeddings, each once and the same for everybody."""

import dataclasses
import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from csvi import __version__, lock
from csvi.config import RANGES, Config, DataConfig, MaskValues
from csvi.data import Benchmark, ImageRecord, find_layout, read_benchmark, recognise
from csvi.data.batch import Batch, prepare
from csvi.data.cache import key_of_files
from csvi.data.depth import check_ranges, levels_of
from csvi.data.files import fingerprint
from csvi.data.images import read_image
from csvi.data.loader import evaluation_loader, loader_errors
from csvi.data.masks import read_mask
from csvi.data.records import DISTRACTOR
from csvi.data.training_set import TrainingSet, training_records
from csvi.errors import CsviError
from csvi.evaluate import GalleryDraw, Refinement
from csvi.evaluate.refine import NO_REFINEMENT
from csvi.fabric import choose_precision, first_alone, launch, make_fabric
from csvi.methods import Method, code_of, find_method
from csvi.model.net import EmbeddingNet
from csvi.model.weights import model_file
from csvi.paths import as_argument, expanded, name_of_folder
from csvi.progress import progress
from csvi.runs.embeddings import embed_together, kept_embeddings, key_of
from csvi.runs.network_files import HUB_NAME, data_of, has_method, load_method, load_net, located, read_net
from csvi.runs.settings import load_config

Module = TypeVar("Module", bound=nn.Module)

FLIP = "flip averaging"
EVALUATION = "evaluation.json"
TOGETHER = 256
"""Images of an identity whose masks are predicted together, at most."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The data that a run is tested on, and the way; None leaves it to the run, or to the dataset."""

    root: str | os.PathLike[str] | None = None
    """Folder of the dataset."""
    layout: str | None = None
    """Its layout; by default that of the run or, of another folder, the one it looks like."""
    fold: int | None = None
    """Fold of the dataset (RegDB)."""
    masks: str | os.PathLike[str] | None = None
    """Folder of person masks; by default that of the run, or of another root its own."""
    mask_values: MaskValues | None = None
    """What marks a person in a mask."""
    visible_range: str | None = None
    """Values that become black and white in visible images of more than 8 bits."""
    infrared_range: str | None = None
    """The same in infrared images."""
    cache: str | os.PathLike[str] | None = None
    """Folder of decoded images."""
    gallery: GalleryDraw | None = None
    """The way galleries are drawn, see `csvi.data.protocols_of`."""
    flip: bool = False
    """Average the embedding of each image with that of its mirror image."""
    refinement: Refinement = NO_REFINEMENT
    """Re-ranking and query expansion."""
    devices: int = 1
    """Devices of this machine that embed together, each in a process that opens the run."""

    def applied_to(self, data: DataConfig) -> DataConfig:
        """Apply the options to the data settings of a run.

        Another root gets the layout it looks like; the run's own root keeps its layout.
        """
        data = dataclasses.replace(data)
        if self.root is not None:
            root = expanded(self.root)
            if root.resolve() != expanded(data.root).resolve():
                data.masks = None
            data.root = os.fspath(self.root)
            if self.layout is None and not find_layout(data.layout).recognise(root):
                data.layout = recognise(root) or data.layout
        data.layout = self.layout or data.layout
        if self.fold is not None:
            data.fold = self.fold
        elif data.fold > find_layout(data.layout).folds:
            data.fold = 1
        data.masks = data.masks if self.masks is None else os.fspath(self.masks)
        data.mask_values = data.mask_values if self.mask_values is None else self.mask_values
        data.cache = data.cache if self.cache is None else os.fspath(self.cache)
        ranges = {name: value for name in RANGES if (value := getattr(self, name)) is not None}
        return dataclasses.replace(data, **ranges)


def named(kind: str, *words: str) -> str:
    """Name a file of a kind, such as `evaluation.json`, with words that say what is not as by default."""
    stem, _, suffix = kind.partition(".")
    return f"{'-'.join([stem, *words])}.{suffix}"


def fold_words(fold: int | None) -> list[str]:
    """Words for the fold of a dataset in the name of a file; none for the first."""
    return [] if fold in (None, 1) else [f"fold-{fold}"]


class Run:
    """A run folder, or a model alone, opened with `Run.open`; whatever it is asked for is made once.

    Attributes:
        path: of the folder, or the name on the Hub.
        options: on what it is tested, and how.
        data: its data settings with the options applied.
        config: its settings; None for a model alone.
    """

    def __init__(self, path: str, options: Options, data: DataConfig, config: Config | None):
        self.path, self.options, self.data, self.config = path, options, data, config
        self.precision = choose_precision(config.precision if config else "auto")

    @classmethod
    def open(cls, path: str | os.PathLike[str], options: Options = Options()) -> "Run":
        """Open a run.

        Args:
            path: folder of a run, or of a model alone, or a model of the Hub, see `load_net`.
            options: by default the dataset that the run was trained on, as its protocols say.

        Raises:
            CsviError: `path` is neither the folder of a run nor a model, its files are damaged, a model alone is given
                no root to be tested on, or another fold of the run's own dataset is asked for.
        """
        folder = expanded(path)
        path = folder if folder.is_dir() else path
        file = folder / "config.yaml"
        if not file.is_file():
            if folder.is_dir() and [entry.name for entry in folder.iterdir()] == [lock.FILE]:
                raise CsviError(f"no training has left anything in {path} yet: wait for it, or start it again")
            return cls._of_model_alone(str(path), options)
        config = load_config(file)
        data = options.applied_to(config.data)
        folds = range(1, find_layout(data.layout).folds + 1)  # another fold is refused when the dataset is read
        if data.layout == config.data.layout and data.fold != config.data.fold and data.fold in folds:
            of_own_fold = cls(str(path), options, dataclasses.replace(data, fold=config.data.fold), config)
            if not of_own_fold.elsewhere:  # of another dataset the folds are other people
                raise CsviError(
                    f"{path} was trained on fold {config.data.fold}, whose people are tested in fold {data.fold}: "
                    "evaluate it on its own, without --data.fold"
                )
        return cls(str(path), options, data, config)

    @classmethod
    def _of_model_alone(cls, path: str, options: Options) -> "Run":
        if not Path(path).is_dir() and not HUB_NAME.fullmatch(path):
            raise CsviError(f"{path} is not the folder of a run: there is no such folder")
        if not options.root:
            why = "it has no config.yaml: of a model alone"
            if not Path(path).is_dir():
                why = "there is no such folder here: of a model of the Hub"
            raise CsviError(f"{path} is not the folder of a run, {why}, say what to test it on with --data.root")
        folder, ours = located(path)
        net = read_net(folder, ours, path)
        run = cls(path, options, options.applied_to(data_of(net, folder, path)), None)
        run.net = run.on_device(net)
        return run

    @property
    def folder(self) -> Path | None:
        """The folder of the run; None for a model of the Hub."""
        return Path(self.path) if Path(self.path).is_dir() else None

    @property
    def name(self) -> str:
        """Name of the run in figures and reports."""
        return name_of_folder(Path(self.path))

    @cached_property
    def benchmark(self) -> Benchmark:
        """The dataset that the run is tested on."""
        return read_benchmark(self.data)

    @cached_property
    def fabric(self) -> Fabric:
        """Devices and precision."""
        fabric = make_fabric(self.precision, self.options.devices)
        launch(fabric)
        return fabric

    @cached_property
    def net(self) -> EmbeddingNet:
        """The network that is kept, on the device, in evaluation mode."""
        with torch.inference_mode(False):  # whoever asks first: others may want gradients
            return self.on_device(load_net(self.path))

    def on_device(self, module: Module) -> Module:
        """Move a network to the device, in the memory format of the images."""
        return module.to(self.fabric.device).to(memory_format=torch.channels_last)

    @property
    def has_method(self) -> bool:
        """Whether the folder holds what training added to the network."""
        return self.config is not None and has_method(Path(self.path))

    @property
    def method(self) -> Method:
        """The whole method as it was trained, on the device; a CsviError if the folder does not hold it any more."""
        return self._method_and_classes[0]

    @cached_property
    def _method_and_classes(self) -> tuple[Method, list[int]]:
        if self.config is None:
            raise CsviError(f"{self.path} is a model alone, without the method that trained it: give a run folder")
        with torch.inference_mode(False):
            method, classes = load_method(Path(self.path), self.config, self.net)
            return self.on_device(method), classes

    @cached_property
    def training_set(self) -> TrainingSet:
        """The images that the run was trained on, and their classes; with masks, if these are still there.

        Raises:
            CsviError: they are of other identities now, or cannot be read.
        """
        if self.config is None:
            raise CsviError(f"{self.path} is a model alone: what it was trained on is not known, give a run folder")
        masks = find_method(self.config.method.name).needs_masks
        some = self.data.without_mask == "train"
        if some or self.data.on_error == "stop":  # else masks that cannot be read decide about the classes
            enough = any if some else all
            masks = masks and enough(record.mask for record in training_records(self.benchmark, self.data))
        training_set = TrainingSet(self.benchmark, self.data, masks)
        if training_set.identities != self._method_and_classes[1]:
            raise CsviError(
                f"{self.path} was trained on other identities than {self.benchmark.root} has now: its classes are not "
                "known any more"
            )
        return training_set

    @cached_property
    def elsewhere(self) -> bool:
        """Whether the test images are known to be others than those of the dataset that the run was trained on."""
        if self.config is None or self.data == self.config.data:
            return False
        try:
            trained = read_benchmark(self.config.data)
            known = fingerprint(trained.root, trained.test)
        except CsviError:  # they are gone; the first evaluation told
            try:
                known = str(json.loads((Path(self.path) / EVALUATION).read_text())["fingerprint"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                return False
        return known != fingerprint(self.benchmark.root, self.benchmark.test)

    def file_of(self, kind: str, *words: str) -> Path | None:
        """Name a file of this kind (`evaluation.json`) in the run folder; the name says what is not as usual."""
        if self.folder is None:
            return None
        where = list[str]()
        if self.elsewhere:
            where = ["on", self.benchmark.root.name, *fold_words(self.data.fold)]
        own = self.config.data if self.config else self.data
        where += [f"{r}-{getattr(self.data, r)}" for r in RANGES if getattr(self.data, r) != getattr(own, r)]
        return self.folder / named(kind, *where, *words)

    @cached_property
    def embeddings_file(self) -> Path | None:
        """The file that keeps the embeddings of the test images."""
        return self.file_of("embeddings.npz", *([FLIP.replace(" ", "-")] if self.options.flip else []))

    @property
    def _takes_masks(self) -> bool:
        """Whether embeddings depend on masks; of a run its settings say so, and the network need not be loaded."""
        if self.config is None:
            return self.net.takes_masks
        return find_method(self.config.method.name).tests_with_masks(self.config.method)

    @cached_property
    def key(self) -> str:
        """Digest of all that embeddings of the test images depend on; empty for a model of the Hub."""
        if self.folder is None:
            return ""
        size, flip = f"{self.data.height}x{self.data.width}", FLIP if self.options.flip else ""
        ranges = [getattr(self.data, name) for name in RANGES]
        weights, benchmark, version = model_file(self.folder), self.benchmark, f"csvi {__version__}"
        masks = list[str]()
        if self._takes_masks:
            files = (record.mask for record in benchmark.test)
            masks = [key_of_files(files, self.data.mask_values, self.data.without_mask)]
        settings = [size, *ranges, self.precision, flip, *masks, version, *filter(None, [self._code])]
        return key_of(weights, benchmark.root, benchmark.test, *settings)

    @property
    def _code(self) -> str:
        return code_of(self.config.method.name if self.config else self.net.method)

    def kept_embeddings(self) -> Tensor | None:
        """Read the embeddings that an evaluation has left, if weights, images and settings are still the same."""
        if self.embeddings_file is None:
            return None
        return kept_embeddings(self.embeddings_file, [record.path for record in self.benchmark.test], self.key)

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings of the test images, (n, D) in their order: those that an evaluation has left, or new ones."""
        kept = self.kept_embeddings()
        return self.embed() if kept is None else kept

    def embed(self) -> Tensor:
        """Embed the test images anew, divided among the processes: (n, D) float32 in their order.

        Raises:
            CsviError: an image cannot be read; or the network takes masks and there are none.
        """
        check_ranges(self.benchmark.root, self.benchmark.test, self.data)
        if self._takes_masks and not any(record.mask for record in self.benchmark.test):
            raise CsviError(
                f"{self.path} selects features by masks at test (method.test_masks), and no test image of "
                f"{self.benchmark.root} has one: csvi masks {as_argument(self.benchmark.root)} --out MASKS makes them, "
                "--data.masks MASKS names their folder"
            )
        root, test = self.benchmark.root, self.benchmark.test
        load = partial(evaluation_loader, root, test, self.data, masks=self._takes_masks)
        with loader_errors():
            if self.options.devices > 1:
                with first_alone(self.fabric):
                    load()  # decodes the images
            return embed_together(self.net, len(test), load, self.fabric, self.options.flip)

    def image(self, record: ImageRecord) -> np.ndarray:
        """Read an image as the network is given it, before normalisation: (H, W, 3) uint8, RGB."""
        levels = levels_of(self.data, record.modality)
        return read_image(self.benchmark.file(record), self.data.height, self.data.width, levels)

    def batch(self, records: Sequence[ImageRecord]) -> Batch:
        """Prepare images as one batch on the device: not augmented, the dataset's identities, masks if all have one."""
        size = self.data.height, self.data.width
        images = np.stack([self.image(record) for record in records])
        masks = [read_mask(record.mask, *size, self.data.mask_values) for record in records if record.mask]
        batch = Batch(
            image=torch.from_numpy(images).permute(0, 3, 1, 2),
            modality=torch.tensor([int(record.modality) for record in records]),
            identity=torch.tensor([record.identity for record in records]),
            mask=torch.from_numpy(np.stack(masks))[:, None] if len(masks) == len(records) else None,
        )
        return prepare(batch, self.fabric.device)

    def masks_by_identity(self, only: Collection[int] | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Predict the masks of test images, of all identities or some; a method may look at an identity's together.

        Distractors are many people, each seen alone. An identity of more than `TOGETHER` images is divided into parts,
        in which both modalities have their share.

        Yields the numbers of the test images of a part, and their probabilities of person: (images, H, W) float32.
        """
        members: dict[int, list[int]] = {}
        for i, record in enumerate(self.benchmark.test):
            if only is None or record.identity in only:
                members.setdefault(record.identity, []).append(i)
        batches = [[i] for i in members.pop(DISTRACTOR, [])]
        for index in members.values():
            parts = math.ceil(len(index) / TOGETHER)
            batches += [index[part::parts] for part in range(parts)]
        loader = evaluation_loader(self.benchmark.root, self.benchmark.test, self.data, batches)
        with loader_errors():
            for index, batch in zip(batches, progress(loader, "Predicting masks", len(batches)), strict=True):
                with torch.inference_mode(), self.fabric.autocast():
                    predicted = self.method.predict_masks(prepare(batch, self.fabric.device))
                assert predicted is not None
                yield index, predicted[:, 0].cpu()
