"""Images of more than 8 bits a pixel: what becomes black and white is measured once for a whole dataset."""

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvi.analysis.dataset_table import print_check
from csvi.analysis.reproduce import check_to_train
from csvi.cli import main
from csvi.config import Config, DataConfig, MethodSettings
from csvi.data import depth as module
from csvi.data.check import Finding, check_dataset
from csvi.data.depth import check_ranges, levels_of, levels_of_halved, measure, with_measured_ranges
from csvi.data.images import Levels, TroubleReading, read_image
from csvi.data.records import Benchmark, ImageRecord, Modality
from csvi.errors import CsviError

DISTANCE = np.hypot(*(np.mgrid[0:32, 0:16] - np.array([16.3, 7.6])[:, None, None]))
PERSON = (DISTANCE - DISTANCE.min()) / np.ptp(DISTANCE)
"""A warm body before a cold wall, (32, 16): 0 in its middle, 1 in the farthest corner."""


def checked(root, layout=None, decode=False, **data):
    return check_dataset(DataConfig(str(root), **data), layout, decode)


def put(file, values, kind=np.uint16):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(kind)).save(file)
    return file


def thermal(folder, coldest, warmest, number=8, kind=np.uint16, warmer=0.0):
    """Files of images that fill such a range; each next one is `warmer` by so much."""
    values = warmest - (warmest - coldest) * PERSON
    values = values if kind == np.float32 else values.round()
    return [put(folder / f"{n}.tif", values + n * warmer, kind) for n in range(number)]


@pytest.fixture
def people(tmp_path):
    """Makes a dataset of two people to train on and one to test; takes the lowest and highest infrared value."""

    def make(train, test=None, kind=np.uint16):
        root, lines = tmp_path / "people", ["path,identity,modality,split"]
        of_split = {"anna": train, "ben": train, "eve": train if test is None else test}
        for name, (coldest, warmest) in of_split.items():
            split = "test" if name == "eve" else "train"
            thermal(root / name / "infrared", coldest, warmest, 2, kind)
            put(root / name / "visible" / "0.tif", 255 * PERSON, np.uint8)
            lines += [f"{name}/infrared/{n}.tif,{name},infrared,{split}" for n in range(2)]
            lines.append(f"{name}/visible/0.tif,{name},visible,{split}")
        (root / "images.csv").write_text("\n".join(lines))
        return root

    return make


def benchmark_of(root):
    def records(*names):
        return [
            ImageRecord(f"{name}/{modality.word}/0.tif", i, 1, modality)
            for i, name in enumerate(names)
            for modality in Modality
        ]

    return Benchmark("people", root, records("anna", "ben"), [], records("eve"))


@pytest.mark.parametrize(
    ("coldest", "warmest", "kind"),
    [
        (7500, 8400, np.uint16),  # raw 14-bit
        (29_000, 31_000, np.uint16),  # hundredths of a kelvin
        (29_000, 31_000, np.int32),
        (290.0, 310.0, np.float32),  # kelvin
        (-10.0, 40.0, np.float32),  # degrees Celsius
        (-1000, 4000, np.int32),
        (0.0, 1.0, np.float32),
    ],
)
def test_thermal_images_keep_their_levels(coldest, warmest, kind, tmp_path):
    files = thermal(tmp_path, coldest, warmest, kind=kind)
    depth = measure(files)
    assert depth.levels > 100
    assert coldest <= depth.black < coldest + 0.1 * (warmest - coldest)
    assert warmest >= depth.white > warmest - 0.1 * (warmest - coldest)
    assert (depth.images, depth.deep) == (8, 8)
    assert len(np.unique(read_image(files[0], 32, 16, Levels(depth.black, depth.white)))) > 100


def test_black_and_white_are_percentiles_of_all_images_together(tmp_path):
    values = np.random.default_rng(0).integers(7000, 9000, (20, 30, 30))
    values[3, 0, 0], values[5, 0, 0] = 0, 65_535  # a dead pixel and the sun
    files = [put(tmp_path / f"{n}.png", image) for n, image in enumerate(values)]
    depth = measure(files)
    low, high = np.percentile(values, (0.5, 99.5))
    assert (depth.black, depth.white) == (np.floor(low), np.ceil(high))
    assert (depth.lowest, depth.highest) == (0, 65_535)
    assert depth.clipped == ((values < depth.black) | (values > depth.white)).mean()
    assert depth.range == f"{int(np.floor(low))},{int(np.ceil(high))}"
    assert str(depth) == (
        f"16 bits a pixel, values 0 to 65,535: {int(np.floor(low)):,} becomes black and {int(np.ceil(high)):,} white, "
        f"{depth.levels} grey levels, 1% of the pixels clipped"
    )


def test_8_bits_stored_as_16_are_the_8_bits(tmp_path):
    grey = np.random.default_rng(0).integers(30, 200, (32, 16))
    deep, plain = put(tmp_path / "a.png", grey), put(tmp_path / "b.png", grey, np.uint8)
    depth = measure([deep])
    assert (depth.black, depth.white) == (0, 255)
    assert (read_image(deep, 10, 5, Levels(0, 255)) == read_image(plain, 10, 5)).all()


def test_values_that_fill_16_bits_are_scaled_as_a_whole(tmp_path):
    depth = measure(thermal(tmp_path, 3000, 60_000))
    assert (depth.black, depth.white) == (0, 65_535)


def test_a_warmer_person_is_brighter_in_another_image(tmp_path):
    """No image is stretched by itself: the same temperature is the same grey."""
    cold, warm = thermal(tmp_path, 7500, 8000, number=2, warmer=300)
    depth = measure([cold, warm])
    levels = Levels(depth.black, depth.white)
    assert read_image(warm, 32, 16, levels).max() > read_image(cold, 32, 16, levels).max() + 50
    same = put(tmp_path / "c.tif", np.full((32, 16), 7900)), put(tmp_path / "d.tif", 7900 - 200 * PERSON)
    assert len({int(read_image(file, 32, 16, levels).max()) for file in same}) == 1


def test_images_of_8_bits_have_no_depth(tmp_path):
    assert measure([]) is None
    assert measure([put(tmp_path / "a.png", 255 * PERSON, np.uint8)]) is None


def test_images_of_one_value_are_one_sentence(tmp_path):
    files = [put(tmp_path / f"{n}.png", np.full((9, 9), 7512)) for n in range(3)]
    with pytest.raises(
        CsviError, match=r"^all pixels of 3 images .* such as .*0\.png, have the value 7,512: nothing can"
    ):
        measure(files)


def test_broken_images_are_left_out_and_trouble_is_told(tmp_path, monkeypatch):
    files = thermal(tmp_path, 7500, 8400, 3)
    files[1].write_bytes(b"broken")
    assert measure([*files, tmp_path / "gone.png"]).deep == 2

    def trouble(file):
        raise TroubleReading(file, "could not be read this time")

    monkeypatch.setattr(module, "deep_values", trouble)
    with pytest.raises(TroubleReading):
        measure(files)


def test_so_many_images_are_looked_at_from_the_first_to_the_last(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "deep_values", lambda file: seen.append(int(file.name)))
    assert measure([Path(str(n)) for n in range(1000)]) is None
    assert len(set(seen)) == module.LOOKED_AT
    assert {0, 999} <= set(seen)
    assert set(np.diff(sorted(seen))) == {3, 4}


def test_the_training_images_are_measured_and_the_numbers_stand_in_the_settings(people, caplog):
    root = people((7500, 8400), test=(20_000, 20_900))
    caplog.set_level(logging.INFO)
    data = with_measured_ranges(benchmark_of(root), DataConfig())
    assert data.visible_range == "auto"
    black, white = levels_of(data, Modality.INFRARED)
    assert 7500 <= black < white <= 8400
    assert levels_of(data, Modality.VISIBLE) is None
    [line] = caplog.messages
    assert line.startswith("infrared images have 16 bits a pixel, values 7,500 to 8,400: 7,5")
    assert line.endswith("(--data.infrared_range)")
    assert with_measured_ranges(benchmark_of(root), data) == data


def test_a_range_that_is_given_is_kept(people):
    given = DataConfig(infrared_range="7000, 9000.0")
    assert given.infrared_range == "7000,9000"  # however it is written
    assert with_measured_ranges(benchmark_of(people((7500, 8400))), given) == given


def test_images_of_8_bits_leave_the_ranges_open(people):
    root = people((0, 255), kind=np.uint8)
    assert with_measured_ranges(benchmark_of(root), DataConfig()) == DataConfig()


def test_a_range_that_shows_nothing_is_refused(people):
    benchmark = benchmark_of(people((7500, 8400), test=(29_000, 31_000)))
    data = with_measured_ranges(benchmark, DataConfig())
    check_ranges(benchmark.root, benchmark.train, data)
    with pytest.raises(
        CsviError, match=r"^100% of the pixels .* outside --data\.infrared_range 7\d+,8\d+, as they are 29,"
    ):
        check_ranges(benchmark.root, benchmark.test, data)


def test_few_levels_are_said_before_training(people, caplog):
    with_measured_ranges(benchmark_of(people((7500, 8400))), DataConfig(infrared_range="0,65535"))
    assert any("only 5 grey levels left of the infrared images" in message for message in caplog.messages)


def test_a_check_says_what_is_used_and_how_many_levels_are_left(people, capsys):
    root = people((7500, 8400))
    check = checked(root, decode=True)
    assert [finding for finding in check.problems if finding.kind in ("depth", "broken")] == []
    assert check.depths.keys() == {"infrared"}
    assert check.depths["infrared"].range == with_measured_ranges(benchmark_of(root), DataConfig()).infrared_range
    print_check(check)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"infrared images: {check.depths['infrared']}" in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0,65535", "keep 5 grey levels, 0% clipped: set --data.infrared_range"),
        ("0,1000", "keep 1 grey level, 100% clipped: set --data.infrared_range"),
    ],
)
def test_a_check_judges_a_range(given, message, people):
    [found] = [f for f in checked(people((7500, 8400)), infrared_range=given).problems if f.kind == "depth"]
    assert found == Finding("depth", "infrared images", message)


def test_a_table_of_the_paper_is_reproduced_with_the_ranges_that_are_set(people):
    data = DataConfig(str(people((7500, 8400))), layout="folder", infrared_range="0,65535")
    with pytest.raises(CsviError, match=r"keep 5 grey levels.*\(csvi check .* --data.infrared_range 0,65535 names"):
        check_to_train(Config(MethodSettings(), data), anyway=False)


def test_a_check_says_that_nothing_can_be_seen(people):
    [found] = [f for f in checked(people((7500, 7500))).problems if f.kind == "depth"]
    assert found.path == "infrared images"
    assert "have the value 7,500" in found.message


def test_a_check_notes_images_of_another_depth_than_the_rest(people):
    root = people((0, 255), kind=np.uint8)
    put(root / "ben/infrared/1.tif", 7500 + 900 * PERSON)
    assert [finding for finding in checked(root).notes if finding.kind == "depth"] == [
        Finding(
            "depth",
            "ben/infrared/1.tif",
            "has more than 8 bits, as 1 of 6 infrared images: the range changes these alone",
        )
    ]


def test_16_bits_a_colour_that_leave_too_few_levels(people, caplog):
    """Pillow reads the upper 8 bits of each colour."""
    root = people((0, 255), kind=np.uint8)
    values = (7500 + 900 * PERSON).astype(">u2")[:, :, None].repeat(3, 2)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 16, 32, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    files = sorted(root.glob("*/infrared/*.tif"))
    assert levels_of_halved(files) is None
    for file in files:
        file.write_bytes(png)
    assert levels_of_halved(files) == 4
    message = "have 16 bits a colour, of which the upper 8 are read: 4 grey levels left"
    [found] = [finding for finding in checked(root).problems if finding.kind == "depth"]
    assert found.path == "infrared images"
    assert found.message.startswith(message)
    with_measured_ranges(benchmark_of(root), DataConfig())
    assert f"infrared images {message}" in caplog.text


def test_check_takes_a_range_on_the_command_line(people, capsys):
    root = str(people((7500, 8400)))
    assert main(["check", root]) == 0
    assert "infrared images: 16 bits a pixel, values 7,500 to 8,400" in capsys.readouterr().out
    assert main(["check", root, "--data.infrared_range", "0,65535"]) == 1
    assert "infrared images keep 5 grey levels, 0% clipped: set --data.infrared_range" in capsys.readouterr().out
    assert main(["check", root, "--data.infrared_range", "9,3"]) == 1
    assert "infrared_range is '9,3': it must be auto, or two numbers" in capsys.readouterr().err
