"""SYSU-MM01, and whatever is written in its layout.

Ancong Wu, Wei-Shi Zheng, Hong-Xing Yu, Shaogang Gong, Jianhuang Lai: RGB-Infrared Cross-Modality Person
Re-Identification, ICCV 2017. The dataset needs a signed agreement with its authors and may not be passed on.

    ROOT/cam1 ... cam6/0006/0001.jpg    camera / identity / image
    ROOT/exp/train_id.txt               one line of comma-separated identities, and so val_id.txt and test_id.txt
    ROOT/exp/rand_perm_cam.mat          the official galleries; some copies lack it, only `--gallery official` reads it
    ROOT/masks/cam1/0006/0001.png       optional, not part of the dataset: person masks, a tree that mirrors the images'

Cameras 1, 2, 4 and 5 are visible, 3 and 6 infrared; 1, 2 and 3 are indoors; 2 and 3 stand at the same place. An
identity that a camera never saw has no folder there, or an empty one. The authors' split: 296 identities to train
(20,284 visible and 9,929 infrared images), 99 to validate (1,974 and 1,980) and 96 to test (6,775 and 3,803).
"""

import os
import re
from pathlib import Path, PurePath

from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError

MODALITIES = {
    1: Modality.VISIBLE,
    2: Modality.VISIBLE,
    3: Modality.INFRARED,
    4: Modality.VISIBLE,
    5: Modality.VISIBLE,
    6: Modality.INFRARED,
}
"""Camera → modality."""
PERMUTATIONS = "exp/rand_perm_cam.mat"
"""The official galleries, relative to the root."""
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp"}


def read_sysu_mm01(root: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None) -> Benchmark:
    """Lists the images of the three splits, sorted by camera, identity and file name; no image is opened.

    Args:
        root: folder of the dataset.
        masks: folder of person masks, by default ROOT/masks where it exists. The mask of `cam1/0006/0001.jpg` is the
            file `cam1/0006/0001.*` in it, whatever its image format; an image without one has `mask=None`.

    Raises:
        CsviError: a folder or an id list is missing or cannot be read, an identity is in two splits, a split has no
            image, or `masks` is given and holds no mask of these images.
    """
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise CsviError(f"{root} is not a folder: give the folder of SYSU-MM01, the one that holds cam1…cam6 and exp")
    missing = [f"cam{camera}" for camera in MODALITIES if not (root / f"cam{camera}").is_dir()]
    if len(missing) == len(MODALITIES):
        raise CsviError(f"no cam1…cam6 in {root}: is this the folder of SYSU-MM01?")
    if missing:
        raise CsviError(f"no {', '.join(missing)} in {root}: SYSU-MM01 has cam1…cam6, copy what is missing")
    identities = {split: read_ids(root / "exp" / f"{split}_id.txt") for split in ("train", "val", "test")}
    _check_disjoint(identities, root / "exp")

    mask_root = root / "masks" if masks is None else Path(masks).expanduser().absolute()
    if masks is not None and not mask_root.is_dir():
        raise CsviError(f"{mask_root} is not a folder: give a folder of masks that mirrors cam1…cam6, or none")
    records = {
        split: [record for camera in MODALITIES for i in ids for record in _images(root, mask_root, camera, i)]
        for split, ids in identities.items()
    }
    for split, images in records.items():
        if not images:
            raise CsviError(
                f"no image of any identity of {root / 'exp' / f'{split}_id.txt'} in {root}: is the copy complete?"
            )
    if masks is not None and not any(record.mask for images in records.values() for record in images):
        raise CsviError(f"no mask of any image in {mask_root}: it must mirror the images' tree, cam1/0001/0001.png")
    synthetic = _is_synthetic(root)
    name = "synthetic benchmark in the layout of SYSU-MM01" if synthetic else "SYSU-MM01"
    return Benchmark(name, root, records["train"], records["val"], records["test"], "sysu", synthetic)


def read_ids(file: Path) -> list[int]:
    """The identities of a list file, sorted: non-negative integers with commas, spaces or line ends between them.

    Raises:
        CsviError: the file is missing, cannot be read, is empty, or holds something other than integers.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CsviError(f"no {file}: SYSU-MM01 comes with it, copy its exp folder beside cam1…cam6") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CsviError(f"cannot read {file} as text ({error}): copy it from SYSU-MM01's exp folder again") from error
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not words:
        raise CsviError(f"{file} is empty: it must hold the identities of its split, one line with commas between them")
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise CsviError(f"{file} holds {word[:40]!r}: it must be one line of integers with commas between them")
    return sorted({int(word) for word in words})


def _is_synthetic(root: Path) -> bool:
    """Whether ROOT/README begins with the word that `csvi synth` begins it with."""
    readme = root / "README"
    return readme.is_file() and readme.read_bytes().startswith(b"SYNTHETIC")


def _check_disjoint(identities: dict[str, list[int]], folder: Path) -> None:
    seen: dict[int, str] = {}
    for split, ids in identities.items():
        for identity in ids:
            if identity in seen:
                raise CsviError(
                    f"identity {identity} is in {seen[identity]}_id.txt and in {split}_id.txt of {folder}: "
                    "splits may not share identities, take it out of one"
                )
            seen[identity] = split


def _images(root: Path, mask_root: Path, camera: int, identity: int) -> list[ImageRecord]:
    folder = f"cam{camera}/{identity:04d}"
    names = _image_names(root / folder)
    masks = (
        {PurePath(name).stem: mask_root / folder / name for name in _image_names(mask_root / folder)} if names else {}
    )
    return [
        ImageRecord(f"{folder}/{name}", identity, camera, MODALITIES[camera], masks.get(PurePath(name).stem))
        for name in names
    ]


def _image_names(folder: Path) -> list[str]:
    """Sorted; hidden files (macOS leaves `._0001.jpg` behind) and anything but images are passed over."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CsviError(f"cannot list {folder}: {error.strerror}") from error
    return sorted(name for name in names if PurePath(name).suffix.lower() in EXTENSIONS)
