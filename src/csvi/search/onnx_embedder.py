"""Embedding in onnxruntime: a file of `csvi export --format onnx`, without torch."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from csvi.config import DataConfig
from csvi.data.records import Modality
from csvi.errors import CsviError, in_one_line
from csvi.paths import digest_of, expanded
from csvi.plain import from_plain, printable
from csvi.plugins import imported
from csvi.search.embedder import Embedder

METADATA = "csvi"
"""Name of the property of the file that holds its facts, as JSON."""
FINGERPRINT = re.compile(r"[0-9a-f]{16}(-pca\d{1,6}-[0-9a-f]{8})?")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a file says of its network, see `Embedder`."""

    fingerprint: str
    name: str
    height: int
    width: int
    dim: int
    visible_range: str = "auto"
    infrared_range: str = "auto"

    @property
    def data(self) -> DataConfig:
        """Settings of the images; raises `CsviError` if they are none."""
        return DataConfig(
            height=self.height,
            width=self.width,
            visible_range=self.visible_range,
            infrared_range=self.infrared_range,
        )


class OnnxEmbedder(Embedder):
    """A network in onnxruntime, on the CPU.

    Its graph takes `image`, (B, H, W, 3) uint8, and `modality`, a number for all of them, 0 or 1; it normalises the
    images itself, and gives `embedding`, (B, D) float32.

    Args:
        file: of `csvi export`.
        dimensions: length that embeddings must have; by default that which the file gives.

    Raises:
        CsviError: there is no such file, it is damaged or another model's, or onnxruntime is not installed.
    """

    def __init__(self, file: Path, dimensions: int | None = None):
        file = expanded(file)
        runtime = imported("onnxruntime", "onnx", file.name)
        try:
            digest = digest_of(file)
        except OSError as error:
            raise CsviError(f"cannot read {file}: {error.strerror or error}") from error
        try:
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # errors
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are for decoding, too
            self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has exceptions of its own
            raise CsviError(f"{file} is damaged or no ONNX model: {in_one_line(error)}") from error
        facts = _facts(self._session, file)
        if dimensions not in (None, facts.dim):
            raise CsviError(
                f"{file} gives embeddings of {facts.dim} numbers: export the run again with --dimensions {dimensions}"
            )
        super().__init__(facts.name, facts.fingerprint, digest, facts.dim, facts.data)

    def embed_pixels(self, images: np.ndarray, modality: Modality) -> np.ndarray:
        """Embed images, see `Embedder`; raises `CsviError` if the network fails."""
        values = {"image": images, "modality": np.array(int(modality), np.int64)}
        try:
            (embeddings,) = self._session.run(["embedding"], values)
        except Exception as error:  # onnxruntime has exceptions of its own
            raise CsviError(f"{self.name} fails in onnxruntime: {in_one_line(error)}") from error
        if embeddings.shape != (len(images), self.dim):
            raise CsviError(f"{self.name} made {embeddings.shape} of {len(images)} images, not {self.dim} of each")
        return np.asarray(embeddings)


def _facts(session: Any, file: Path) -> Facts:
    """Read what the file says of itself, and check it against its graph; raises `CsviError` if it is another's."""
    known = {field.name for field in dataclasses.fields(Facts)}
    try:
        said = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        said = printable({name: said[name] for name in known & said.keys()}) if isinstance(said, dict) else said
        facts: Facts = from_plain(Facts, said)
        data = facts.data
        if not FINGERPRINT.fullmatch(facts.fingerprint):
            raise ValueError(f"its fingerprint is {facts.fingerprint[:40]!r}")
        inputs = {each.name: (each.type, each.shape[1:]) for each in session.get_inputs()}
        outputs = {each.name: (each.type, each.shape[1:]) for each in session.get_outputs()}
        wanted = {"image": ("tensor(uint8)", [data.height, data.width, 3]), "modality": ("tensor(int64)", [])}
        if inputs != wanted or outputs != {"embedding": ("tensor(float)", [facts.dim])}:
            raise ValueError(f"its graph takes {inputs} and gives {outputs}")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, CsviError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else in_one_line(error)
        raise CsviError(
            f"{file} is no network of this version of csvi ({reason}): write it with csvi export RUN --format onnx"
        ) from error
    return facts
