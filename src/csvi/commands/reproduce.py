"""`csvi reproduce`: the paper's tables on its datasets."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.config import shipped_config
from csvi.paths import expanded

SUMMARY = "The paper's Tables 1 to 4 on its datasets, beside its figures. Stops and resumes."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", choices=["sysu", "regdb"])
    parser.add_argument("--data", required=True, help="folder of the dataset")
    parser.add_argument(
        "--masks", help="folder of masks; by default DATA/masks (the paper's are predictions of its ref. 8)"
    )
    parser.add_argument("--settings", help="YAML file; by default configs/sysu.yaml, regdb.yaml. See letter.yaml")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant, or fold")
    parser.add_argument("--anyway", action="store_true", help="continue although csvi check finds problems")
    parser.add_argument("--out", default="runs/reproduction", help="folder to write")


def run(settings: Namespace) -> None:
    from csvi.analysis.reproduce import reproduce
    from csvi.runs import load_config

    config = load_config(expanded(settings.settings) if settings.settings else shipped_config(settings.dataset))
    config.data.root, config.data.masks = settings.data, settings.masks or config.data.masks
    file = reproduce(settings.dataset, config, expanded(settings.out), settings.seeds, settings.anyway)
    print(f"{file.read_text()}\nwritten: {file}")
