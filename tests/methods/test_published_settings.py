"""Settings and figures that the field published, written out here once more, for each file of configs/methods."""

from dataclasses import asdict
from pathlib import Path

import pytest

from csvi.methods import METHODS, find_method
from csvi.runs import load_config

CONFIGS = Path(__file__).parents[2] / "configs/methods"

AGW = {"base": False, "triplet_weight": 1}
CAJ = AGW | {"squared": True, "infrared_grey": 0.5}
DEEN = {
    "stages": 5, "erase_area": (0.02, 0.4), "dropout": 0.01, "pair_weight": 0.8, "pair_margin": 0.2,
    "orthogonal_weight": 0.01,
}  # fmt: skip
HCTRI = {"parts": 6, "part_dim": 256, "power": 3, "part_weight": 1, "smoothing": 0}
MPANET = {
    "patterns": 6, "normalize": True, "separation_weight": 0.5, "center_weight": 1, "margin": 0.7, "modality_weight": 1,
    "mutual_weight": 2.5, "update_rate": 0.2, "update_epochs": 25,
}  # fmt: skip
MTL = {"parts": 6, "part_dim": 512, "center_weight": 0.2, "segmentation_weight": 5, "pair_weight": 5, "map_weight": 1}
PMT = {"grey_epochs": 6, "margin": 0.1, "center_weight": 0.5, "enhancement_weight": 0.5}
OF_METHOD = {
    "agw": AGW,
    "agw-llcm": AGW,
    "hc": {"parts": 6, "part_dim": 512, "center_weight": 0.5, "center_distance": "l2"},
    "hctri": HCTRI,
    "hctri-regdb": HCTRI | {"power": 10, "part_weight": 2, "smoothing": 0.1},
    "mtl": MTL,
    "caj": CAJ,
    "caj+": CAJ | {"infrared_grey": 0.6, "visible_erase": 0.6, "agreement_weight": 1},
    "caj+-regdb": CAJ | {"visible_erase": 0.5, "agreement_weight": 1},
    "ddag": {"parts": 3, "heads": 4, "dropout": 0.2},
    "deen": DEEN | {"erase_area": (0.2, 0.8)},
    "deen-regdb": DEEN | {"stages": 4},
    "deen-llcm": DEEN,
    "pmt": PMT,
    "pmt-regdb": PMT,
    "mpanet": MPANET,
    "mpanet-regdb": MPANET | {"normalize": False, "update_epochs": 50},
}

OF_DATA = {  # height, width; identities x images; padding; probabilities of mirroring, erasing, grey; with replacement
    "agw": (288, 144, 8, 4, 10, 0.5, 0, 0, True),
    "agw-llcm": (288, 144, 8, 4, 10, 0.5, 0.5, 0, True),
    "hc": (288, 144, 4, 8, 0, 0.5, 0, 0, False),
    "hctri": (288, 144, 6, 8, 10, 0.5, 0, 0, True),
    "hctri-regdb": (288, 144, 8, 4, 10, 0.5, 0, 0, True),
    "mtl": (288, 144, 8, 4, 10, 0.5, 0, 0, False),
    "caj": (288, 144, 8, 4, 10, 0.5, 0.5, 0, True),
    "caj+": (288, 144, 8, 4, 10, 0.5, 0.5, 0.1, True),
    "caj+-regdb": (288, 144, 8, 4, 10, 0.5, 0.5, 0, True),
    "ddag": (288, 144, 8, 4, 10, 0.5, 0, 0, True),
    "deen": (384, 144, 6, 4, 10, 0.5, 0.5, 0.5, True),
    "deen-regdb": (384, 144, 6, 4, 10, 0.5, 0.5, 0.5, True),
    "deen-llcm": (384, 144, 6, 4, 10, 0.5, 0.5, 0.5, True),
    "pmt": (256, 128, 8, 4, 10, 0.5, 0.5, 0, False),  # PMT's views have no padding
    "pmt-regdb": (256, 128, 8, 4, 10, 0.5, 0.5, 0, False),
    "mpanet": (384, 128, 16, 4, 10, 0.5, 0.5, 0, False),
    "mpanet-regdb": (256, 128, 12, 5, 10, 0.5, 0.5, 0, False),
}

WARM = {0: 1, 20: 0.1, 50: 0.01}  # and ten epochs of warm-up
MTL_FACTORS = {0: 1, 5: 0.75, 10: 0.5, 15: 0.25, 20: 0.125, 25: 0.1}
OF_TRAIN = {  # epochs; rate of the heads, times what for the rest; weight decay; factors by epoch; epochs of warm-up
    "agw": (81, 0.1, 0.1, 5e-4, WARM, 10),
    "agw-llcm": (81, 0.1, 0.1, 5e-4, WARM, 10),
    "hc": (61, 0.01, 0.1, 5e-4, {0: 1, 30: 0.1, 60: 0.01}, 0),
    "hctri": (61, 0.1, 0.1, 5e-4, WARM, 10),
    "hctri-regdb": (61, 0.1, 0.1, 5e-4, WARM, 10),
    "mtl": (29, 0.01, 0.1, 5e-4, MTL_FACTORS, 0),
    "caj": (100, 0.1, 0.1, 5e-4, WARM, 10),
    "caj+": (100, 0.1, 0.1, 5e-4, WARM, 10),
    "caj+-regdb": (100, 0.1, 0.1, 5e-4, WARM, 10),
    "ddag": (81, 0.1, 0.1, 5e-4, WARM, 10),
    "deen": (151, 0.1, 0.1, 5e-4, {0: 1, 20: 0.1, 80: 0.01}, 10),
    "deen-regdb": (151, 0.1, 0.1, 5e-4, {0: 1, 20: 0.1, 80: 0.01}, 10),
    "deen-llcm": (151, 0.1, 0.1, 5e-4, {0: 1, 20: 0.1, 80: 0.01}, 10),
    "pmt": (24, 3e-4, 0.5, 1e-4, {0: 1}, 3),
    "pmt-regdb": (36, 3e-4, 0.5, 1e-4, {0: 1}, 3),
    "mpanet": (35, 3.5e-4, 1, 5e-4, {0: 1, 20: 0.1, 30: 0.01}, 0),  # epochs four times as long as its code's
    "mpanet-regdb": (70, 3.5e-4, 1, 5e-4, {0: 1, 55: 0.1}, 0),  # twice
}

FIGURES = {  # R1 and mAP, in percent
    ("agw", "sysu", "all-search single-shot"): (47.50, 47.65),
    ("agw", "sysu", "indoor-search single-shot"): (54.17, 62.97),
    ("agw", "llcm", "infrared to visible"): (46.4, 54.8),
    ("agw", "llcm", "visible to infrared"): (56.0, 59.1),
    ("hc", "sysu", "all-search single-shot"): (56, 54),
    ("caj", "sysu", "all-search single-shot"): (69.88, 66.89),
    ("caj", "sysu", "indoor-search single-shot"): (76.3, 80.4),
    ("caj", "regdb", "visible to thermal"): (85.0, 79.1),
    ("caj", "regdb", "thermal to visible"): (84.8, 77.8),
    ("caj", "llcm", "infrared to visible"): (48.8, 56.6),
    ("caj", "llcm", "visible to infrared"): (56.5, 59.8),
    ("ddag", "sysu", "all-search single-shot"): (54.75, 53.02),
    ("ddag", "sysu", "indoor-search single-shot"): (61.02, 67.98),
    ("ddag", "regdb", "visible to thermal"): (69.3, 63.5),
    ("ddag", "regdb", "thermal to visible"): (68.1, 61.8),
    ("ddag", "llcm", "infrared to visible"): (40.3, 48.4),
    ("ddag", "llcm", "visible to infrared"): (48.0, 52.3),
    ("deen", "sysu", "all-search single-shot"): (74.7, 71.8),
    ("deen", "sysu", "indoor-search single-shot"): (80.3, 83.3),
    ("deen", "regdb", "visible to thermal"): (91.1, 85.1),
    ("deen", "regdb", "thermal to visible"): (89.5, 83.4),
    ("deen", "llcm", "infrared to visible"): (54.9, 62.9),
    ("deen", "llcm", "visible to infrared"): (62.5, 65.8),
    ("mpanet", "sysu", "all-search single-shot"): (70.6, 68.2),
    ("mpanet", "sysu", "indoor-search single-shot"): (76.7, 81.0),
    ("pmt", "sysu", "all-search single-shot"): (67.53, 64.98),
}
OF_THE_CSVI_PAPER = {"baseline", "select", "segment", "decode", "coseg", "hctri", "mtl"}  # test_compared.py


def test_every_file_is_here():
    files = {file.stem for file in CONFIGS.glob("*.yaml")} - {"strong"}
    assert files == OF_METHOD.keys() == OF_DATA.keys() == OF_TRAIN.keys()


@pytest.mark.parametrize("file", OF_METHOD)
def test_settings_are_the_published(file):
    config = load_config(CONFIGS / f"{file}.yaml")
    method, data, train = config.method, config.data, config.train
    name = file.split("-")[0]
    backbone = "vit_base" if name == "pmt" else "resnet50"
    assert asdict(method) == {"name": name, "backbone": backbone, "weights": "imagenet"} | OF_METHOD[file]
    of_data = data.height, data.width, data.identities, data.images, data.pad, data.flip, data.erase, data.grayscale
    assert (*of_data, data.replacement) == OF_DATA[file]
    of_train = train.epochs, train.lr, train.lr_pretrained, train.weight_decay, train.factors, train.warmup_epochs
    assert of_train == OF_TRAIN[file]
    optimizer = {"pmt": "adamw", "mpanet": "adam"}.get(name, "sgd")
    assert (train.optimizer, train.nesterov, train.momentum) == (optimizer, optimizer == "sgd", 0.9)


def test_figures_are_the_published():
    found = {
        (name, dataset, protocol): (metrics["R1"], metrics["mAP"])
        for name in METHODS
        if name not in OF_THE_CSVI_PAPER and (published := find_method(name).published)
        for dataset, protocols in published.metrics.items()
        for protocol, metrics in protocols.items()
    }
    assert found == FIGURES


def test_methods_that_are_published_with_mirror_images():
    assert {name for name in METHODS if find_method(name).flip} == {"caj", "caj+", "deen"}
