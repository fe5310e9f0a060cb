"""`report.html`: one page about one run that needs nothing beside it."""

import base64
import io
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from PIL import Image
from torch import Tensor

from csvi import __version__
from csvi.analysis.curves import loss_curves, validation_curves
from csvi.analysis.make_figure import FIGURES
from csvi.data import ImageRecord, Modality
from csvi.data.images import load_image, read_image
from csvi.evaluate.masks import full_size
from csvi.evaluate.metrics import RULES, removed
from csvi.evaluate.protocols import Protocol, protocols_of
from csvi.evaluate.runs import Outcome
from csvi.writing import replacing

THUMBNAIL = 120
"""Height of an image on the page, in pixels."""


@dataclass(frozen=True)
class Ranked:
    """One gallery image in a ranked list."""

    image: str
    """Data URI."""
    label: str
    kind: str
    """`right`, `wrong`, or `removed`: not counted, under the protocol's rules."""
    rank: int | None
    """From 1, among the images that count."""


@dataclass(frozen=True)
class RankedList:
    """A probe and what the gallery answers."""

    image: str
    label: str
    gallery: list[Ranked]


@dataclass(frozen=True)
class MaskExample:
    """An image with its true and its predicted mask, as data URIs."""

    label: str
    image: str
    true: str
    predicted: str


def write_report(run: Path, outcome: Outcome, probes: int = 10, seed: int = 0) -> Path:
    """Write RUN/report.html: results, curves, ranked lists of probes drawn at random, and predicted masks.

    Args:
        run: folder of the run.
        outcome: its evaluation.
        probes: ranked lists, and half as many examples of masks of each modality.
        seed: draws the probes; they are never picked by their result.

    Returns:
        The file.
    """
    chosen = random.Random(seed)
    gallery = outcome.evaluation.protocols[0].gallery
    protocol = protocols_of(outcome.benchmark, "test", gallery, trials=1)[0]
    queries = sorted(chosen.sample(list(protocol.trials[0].query), min(probes, len(protocol.trials[0].query))))
    page = Environment(loader=PackageLoader("csvi.analysis"), autoescape=True).get_template("report.html.j2")
    file = run / "report.html"
    html = page.render(
        run="/".join(run.resolve().parts[-2:]),
        version=__version__,
        evaluation=outcome.evaluation,
        config=outcome.config,
        headline=outcome.evaluation.protocols[0],
        losses=loss_curves(run),
        validation=validation_curves(run),
        protocol=protocol,
        rules=RULES[protocol.rules],
        pairs={(pair.query, pair.gallery): pair for pair in outcome.evaluation.camera_pairs},
        query_cameras=sorted({pair.query for pair in outcome.evaluation.camera_pairs}),
        gallery_cameras=sorted({pair.gallery for pair in outcome.evaluation.camera_pairs}),
        lists=[ranked_list(query, protocol, outcome) for query in queries],
        masks=mask_examples(outcome, chosen, probes),
        figures=drawn_figures(run),
        settings=(run / "config.yaml").read_text() if (run / "config.yaml").exists() else "",
        identities=len({outcome.benchmark.test[i].identity for i in protocol.trials[0].query}),
        thumbnail=THUMBNAIL,
        pct=lambda share: f"{100 * share:.1f}",
    )
    with replacing(file) as partial:
        partial.write_text(html, encoding="utf-8")
    return file


def drawn_figures(run: Path) -> list[tuple[str, str]]:
    """Data URI and caption of each figure that `csvi figure` has left in RUN/figures."""
    files = {name: run / "figures" / f"{name}.png" for name in FIGURES}
    return [
        ("data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(), FIGURES[name].caption)
        for name, file in files.items()
        if file.is_file()
    ]


def ranked_list(query: int, protocol: Protocol, outcome: Outcome, length: int = 10) -> RankedList:
    """The nearest gallery images of a query in the protocol's first trial, and those that its rules remove."""
    records, gallery = outcome.benchmark.test, torch.tensor(protocol.trials[0].gallery)
    probe = records[query]
    distance = torch.linalg.vector_norm(outcome.embeddings[gallery] - outcome.embeddings[query], dim=1)
    identity, camera = (torch.tensor([getattr(records[i], name) for i in gallery]) for name in ("identity", "camera"))
    gone = removed(
        torch.tensor([probe.identity]), torch.tensor([probe.camera]), identity, camera, RULES[protocol.rules]
    )[0]
    ranked: list[Ranked] = []
    rank = 0
    for column in distance.argsort(stable=True).tolist():
        record = records[int(gallery[column])]
        kind = "removed" if gone[column] else "right" if record.identity == probe.identity else "wrong"
        rank += kind != "removed"
        label = f"id {record.identity}, cam{record.camera}"
        ranked.append(Ranked(_thumbnail(outcome, record), label, kind, None if kind == "removed" else rank))
        if rank == length:
            break
    return RankedList(_thumbnail(outcome, probe), f"id {probe.identity}, cam{probe.camera}", ranked)


def mask_examples(outcome: Outcome, chosen: random.Random, count: int) -> list[MaskExample]:
    """Images drawn at random, half of them visible, with their true and their predicted mask."""
    if outcome.masks is None:
        return []
    records, size = outcome.benchmark.test, (outcome.config.data.height, outcome.config.data.width)
    examples = []
    for modality in Modality:
        index = [i for i, record in enumerate(records) if record.modality == modality]
        for i in sorted(chosen.sample(index, min(count // 2, len(index)))):
            record = records[i]
            probability = full_size(outcome.masks[i : i + 1], *size)[0]
            true = Image.fromarray(read_image(Path(str(record.mask)), *size, "L"))
            examples.append(
                MaskExample(
                    f"id {record.identity}, cam{record.camera}",
                    _thumbnail(outcome, record),
                    _data_uri(true),
                    _data_uri(_grey(probability)),
                )
            )
    return examples


def _thumbnail(outcome: Outcome, record: ImageRecord) -> str:
    thumbnail = load_image(outcome.benchmark.file(record), "RGB")
    thumbnail.thumbnail((4 * THUMBNAIL, 2 * THUMBNAIL))
    return _data_uri(thumbnail)


def _grey(probability: Tensor) -> Image.Image:
    return Image.fromarray((255 * probability).round().byte().numpy())


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
