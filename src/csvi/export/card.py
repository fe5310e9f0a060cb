"""The model card: what a model is, how it is used and what it must not be used for; all numbers are of its own run."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

import csvi
from csvi.config import Config, flatten, varying
from csvi.data import Modality, read_benchmark
from csvi.data.records import Counts
from csvi.data.training_set import training_records
from csvi.errors import CsviError
from csvi.methods import find_method
from csvi.model.weights import noted
from csvi.runs import Evaluation, Run
from csvi.runs.evaluation import kept_evaluation
from csvi.runs.run import EVALUATION
from csvi.runs.trained import Trained

log = logging.getLogger(__name__)

TASK = "image-feature-extraction"
"""The Hub's name of what an embedding network does."""


class Known(NamedTuple):
    """What is known of the data and metrics of a model; empty where nothing is."""

    dataset: str = ""
    synthetic: bool = False
    """Whether its images are rendered."""
    trained_on: Counts | None = None
    evaluation: Evaluation | None = None
    unchecked: bool = False
    """Whether nothing says that the evaluation is of these weights, because its images are not there."""


def model_card(model: Trained, weights: str = "float32", repository: str | None = None) -> str:
    """Write the card of an exported model as Markdown; `weights` is what they are stored in."""
    known, method = _known(model), find_method(model.net.method)
    environment = Environment(
        loader=PackageLoader("csvi.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("model-card.md.j2").render(
        header=_header(model, known.evaluation),
        repository=repository or "OWNER/NAME",
        name=repository or model.name,
        model=model,
        title=method.title or model.net.method,
        module=model.module,
        paper=method.paper,
        weights=weights,
        unfinished=noted(model.folder).get("unfinished"),
        parameters=sum(parameter.numel() for parameter in model.net.parameters()) / 1e6,
        version=csvi.__version__,
        known=known,
        evaluation=known.evaluation,
        settings=_settings(model.config),
        pct=lambda share: f"{100 * share:.1f}",
    )


def _known(model: Trained) -> Known:
    """Read the dataset of a run, and the evaluation on it that its folder holds."""
    if model.config is None:
        return Known()
    file = model.folder / EVALUATION
    try:
        benchmark = read_benchmark(model.config.data)
        evaluation = kept_evaluation(Run.open(model.folder))
    except CsviError as error:
        log.warning("the dataset is not there (%s): the model card has what %s says of it", error, EVALUATION)
        try:
            evaluation = Evaluation.load(file)
        except CsviError:
            return Known()
        return Known(evaluation.benchmark, evaluation.synthetic, None, evaluation, unchecked=True)
    if evaluation is None and file.is_file():
        log.warning("%s is of other weights, images or settings: the model card is without it; evaluate again", file)
    trained_on = Counts.of(training_records(benchmark, model.config.data))
    return Known(benchmark.name, benchmark.synthetic, trained_on, evaluation)


def _settings(config: Config | None) -> str:
    """The settings that shape a run, as YAML; none that are of this machine, as paths are."""
    if config is None:
        return ""
    machine = varying(config, "machine")
    plain = {name: value for name, value in flatten(config).items() if name not in machine}
    weights = str(plain.get("method.weights", ""))
    if weights:
        plain["method.weights"] = Path(weights).name
    text: str = yaml.safe_dump(json.loads(json.dumps(plain)), sort_keys=False)  # tuples as lists
    return text.rstrip()


def _header(model: Trained, evaluation: Evaluation | None) -> str:
    """What the Hub reads, as YAML."""
    results = []
    if evaluation is not None:
        dataset = "synthetic" if evaluation.synthetic else evaluation.layout
        results = [
            EvalResult(TASK, dataset, evaluation.benchmark, name, round(100 * spread.mean, 2), dataset_config=protocol)
            for protocol, metrics in ((result.protocol, result.metrics) for result in evaluation.protocols)
            for name, spread in metrics.items()
        ]
    tags = ["visible-infrared", "person-re-identification", *[each.word for each in Modality], model.net.method]
    data = ModelCardData(
        library_name="csvi", pipeline_tag=TASK, tags=tags, model_name=model.name if results else None,
        eval_results=results or None,
    )  # fmt: skip
    return data.to_yaml()
