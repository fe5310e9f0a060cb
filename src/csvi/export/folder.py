"""Exports a network as a folder to pass on: its weights, what builds it again, and a model card; and uploads it."""

import shutil
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from csvi.data.files import is_of_system
from csvi.errors import CsviError, in_one_line
from csvi.export.card import model_card
from csvi.export.graph import embed_with, largest_difference
from csvi.methods import METHODS
from csvi.model.weights import MODEL, model_file, noted
from csvi.runs.network_files import CONFIG, load_net
from csvi.runs.trained import Trained
from csvi.writing import replacing

CARD = "README.md"
STORED = {"float32": torch.float32, "float16": torch.float16}
"""What weights can be stored in."""


def export_folder(model: Trained, out: Path, weights: str = "float32", repository: str | None = None) -> float:
    """Write OUT/config.json, OUT/model.safetensors and OUT/README.md; `csvi.runs.load_net` and `csvi.load` read them.

    Args:
        model: what is exported.
        out: the folder, new or empty, or with an export, which is replaced; but not if anything lies beside that, as
            the results of csvi evaluate do, which would be of other weights.
        weights: what tensors of two axes and more are stored in, `float32` or `float16`; they are used in float32.
        repository: `owner/name` that the model card names.

    Returns:
        The largest difference of a number of an embedding from that of `model`.

    Raises:
        CsviError: the folder holds something else or cannot be written.
    """
    if weights not in STORED:
        raise CsviError(f"weights of safetensors are stored in {' or '.join(STORED)}, not in {weights}")
    there = {file.name for file in out.iterdir() if not is_of_system(file.name)} if out.is_dir() else set()
    other = sorted(there - {CONFIG, MODEL, CARD})
    if other or (out.exists() and not out.is_dir()):
        holds = f"holds {other[0]}, which no export has" if other else "is no folder"
        raise CsviError(f"{out} {holds}: name an empty or a new folder")
    if out.exists() and out.samefile(model.folder):
        raise CsviError(f"{out} is what is exported: name another folder")
    wanted, size = embed_with(model.net), (model.net.height, model.net.width)
    try:
        tensors = load_file(model_file(model.folder))
        short = {name: tensor.to(STORED[weights]) for name, tensor in tensors.items() if tensor.dim() > 1}
        notes = {name: value for name, value in noted(model.folder).items() if name in ("code", "unfinished")}
        notes |= {"format": "pt", "fingerprint": model.fingerprint, **model.ranges}
        card = model_card(model, weights, repository)
        with replacing(out / CONFIG) as partial:
            shutil.copyfile(model.folder / CONFIG, partial)
        with replacing(out / MODEL) as partial:
            partial.write_bytes(save(tensors | short, notes))
        with replacing(out / CARD) as partial:
            partial.write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CsviError(f"cannot write the model to {out}: {in_one_line(error)}") from error
    return largest_difference(embed_with(load_net(out)), wanted, *size)


def check_repository(repository: str, method: str) -> None:
    """Raises `CsviError` if this is no `owner/name`, or nobody could load a model of this method from there."""
    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise ValueError("it must be owner/name")
    except ValueError as error:
        raise CsviError(f"{repository!r} is no repository: {in_one_line(error)}") from error
    if method not in METHODS:
        raise CsviError(
            f"{method} is not one of the methods of csvi, which runs no code that a model of the Hub names: pass the "
            "exported folder on together with its module"
        )


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to the Hub, into a repository that is private if it is new; returns its address.

    Raises:
        CsviError: nobody is logged in there, it belongs to somebody else, or there is no network.
    """
    try:
        api = HfApi()
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[CONFIG, MODEL, CARD])
    except Exception as error:  # of the Hub's, or of the HTTP client that it is with
        raise CsviError(
            f"cannot upload {folder} to {repository} ({in_one_line(error)}): it is whole on this machine; log in with "
            "hf auth login and export again"
        ) from error
    return str(address)
