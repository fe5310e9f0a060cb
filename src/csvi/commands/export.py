"""`csvi export`: a trained network for use elsewhere."""

from jsonargparse import Namespace

from csvi.commands.parser import Parser
from csvi.errors import CsviError
from csvi.paths import as_argument, expanded

SUMMARY = "Export a trained network: ONNX, TorchScript, or a folder with a model card, to pass on or upload."
FOLDER = "safetensors"
"""Format of a folder; the others are single files."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", help="run folder, folder of a model alone, or a model of the Hub")
    parser.add_argument(
        "--format",
        choices=["onnx", "torchscript", "pt2", FOLDER],
        required=True,
        help="onnx: without PyTorch; torchscript and pt2: for PyTorch without csvi; safetensors: for csvi",
    )
    parser.add_argument("--out", required=True, help="file to write, .onnx, .pt or .pt2; of safetensors a folder")
    parser.add_argument(
        "--weights",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="what large weights are stored in; int8 in ONNX alone",
    )
    parser.add_argument("--dimensions", type=int, help="reduce embeddings to so many numbers; not in safetensors")
    parser.add_argument("--push", help="owner/name on the Hub to upload the folder to; private if it is new")


def run(settings: Namespace) -> None:
    from csvi.export.folder import check_repository, export_folder, push
    from csvi.export.make import export_file
    from csvi.runs.trained import Trained

    out, kind, repository = expanded(settings.out), settings.format, settings.push
    if kind == FOLDER and settings.dimensions is not None:
        raise CsviError("a folder of safetensors has the whole network: give --dimensions to csvi embed and csvi index")
    if kind != FOLDER and repository:
        raise CsviError("--push uploads a folder with a model card: export it with --format safetensors")
    model = Trained.open(settings.run)
    if repository:
        check_repository(repository, model.net.method)
    if kind == FOLDER:
        difference = export_folder(model, out, settings.weights, repository)
    else:
        difference = export_file(model, kind, out, settings.weights, settings.dimensions)
    size = sum(file.stat().st_size for file in (out.iterdir() if out.is_dir() else [out]))
    print(f"{kind}: {out} ({size / 1e6:.1f} MB, weights in {settings.weights})")
    print(f"largest difference of a number of an embedding from PyTorch in float32: {difference:.1e}")
    if repository:
        print(f"uploaded: {push(out, repository)}")
    if kind == "onnx":
        print(f"next: csvi embed CROPS --run {as_argument(out)} --out features.npz")
    elif kind == FOLDER:
        if model.module:
            print(f"needs: the module {model.module}, installed or on PYTHONPATH: pass it on with the folder")
        print(
            f"next: fill in the licence in {out / 'README.md'}; csvi embed CROPS --run {as_argument(out)} --out F.npz"
        )
