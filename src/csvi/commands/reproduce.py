"""`csvi reproduce`: the paper's tables on its datasets, or methods of the field as they were published."""

from jsonargparse import Namespace

from csvi.commands.parser import CONFIG, Parser
from csvi.config import settings_file, shipped_config
from csvi.errors import CsviError
from csvi.paths import expanded

SUMMARY = "The paper's Tables 1 to 4 on its datasets, or methods of the field, beside what was published."


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", choices=["sysu", "regdb", "llcm"])
    parser.add_argument("--data.root", required=True, help="folder of the dataset")
    parser.add_argument(
        "--data.masks", help="folder of masks; by default ROOT/masks (the paper's are predictions of its ref. 8)"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="these instead of the paper's tables, see csvi methods"
    )
    parser.add_argument("--weights", nargs="+", metavar="METHOD=PATH", help="initial weights of these --methods")
    parser.add_argument("--config", help=f"of the paper's tables: {CONFIG}; by default that of the dataset")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant, or fold")
    parser.add_argument("--anyway", action="store_true", help="continue although csvi check finds problems")
    parser.add_argument("--out", default="runs/reproduction", help="folder to write")


def run(settings: Namespace) -> None:
    from csvi.analysis.reproduce import reproduce
    from csvi.analysis.reproduce_methods import configs_of, reproduce_methods
    from csvi.runs import load_config

    s, out = settings, expanded(settings.out)
    if s.methods:
        if s.config:
            raise CsviError("--config is of the paper's tables: --methods have those of configs/methods")
        configs = configs_of(s.methods, s.dataset, dict(map(_pair, s.weights or [])))
        file = reproduce_methods(s.dataset, configs, s.data.root, out, s.data.masks, s.seeds, s.anyway)
    else:
        if s.weights:
            raise CsviError("--weights are of --methods: for the paper's tables set method.weights in a --config file")
        if s.dataset == "llcm":
            raise CsviError("the paper has no figures of LLCM: name methods to train with --methods, see csvi methods")
        config = load_config(settings_file(s.config) if s.config else shipped_config(s.dataset))
        config.data.root, config.data.masks = s.data.root, s.data.masks or config.data.masks
        file = reproduce(s.dataset, config, out, s.seeds, s.anyway)
    print(f"{file.read_text(encoding='utf-8')}\nwritten: {file}")


def _pair(text: str) -> tuple[str, str]:
    method, equals, path = text.partition("=")
    if not (method and equals and path):
        raise CsviError(f"--weights is {text!r}: it must be METHOD=PATH, as pmt=vit.pth")
    return method, path
