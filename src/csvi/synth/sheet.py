"""The contact sheet: a few people of the benchmark, before several cameras, with their masks."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from csvi.config import SynthConfig
from csvi.errors import CsviError
from csvi.synth import sysu
from csvi.synth.benchmark import put, resolve, shot_generator
from csvi.synth.people import draw_person
from csvi.synth.photo import photograph

ROWS = ((1, "visible\nindoors\ncamera 1"), (4, "visible\noutdoors\ncamera 4"), (3, "infrared\nindoors\ncamera 3"),
        (6, "infrared\nat night\ncamera 6"))  # fmt: skip
GAP, LEFT, TOP = 4, 84, 22


def write_sheet(file: Path, config: SynthConfig, people: int = 10) -> None:
    """Writes a PNG with a column for each of `people` identities: two visible, two infrared images and two masks."""
    settings = resolve(config)
    wanted = sysu.structure(settings.preset)
    everyone = sorted({identity for identity, _ in wanted.counts})
    chosen = [identity for identity in everyone if all(wanted.counts[identity, camera] for camera, _ in ROWS)][:people]
    columns = []
    for identity in chosen:
        person = draw_person(settings.seed, identity, settings.rho)
        cells = []
        for camera, _ in ROWS:
            rng = shot_generator(settings.seed, sysu.Shot(identity, camera, 1, ""))
            photo, _ = photograph(person, camera, rng, settings.height, settings.width)
            cells += [photo.image]
            if camera in (4, 6):
                cells += [np.repeat(photo.mask[:, :, None], 3, axis=2)]
        columns.append(cells)
    labels = [
        ROWS[0][1],
        ROWS[1][1],
        "mask of\nthe person\nabove",
        ROWS[2][1],
        ROWS[3][1],
        "mask of\nthe person\nabove",
    ]
    height, width = settings.height + GAP, settings.width + GAP
    sheet = Image.new("RGB", (LEFT + width * len(columns), TOP + height * len(labels)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, label in enumerate(labels):
        draw.multiline_text((6, TOP + height * row + height // 2), label, "black", font, anchor="lm", spacing=2)
    for column, (identity, cells) in enumerate(zip(chosen, columns, strict=True)):
        x = LEFT + width * column
        draw.text((x + settings.width // 2, TOP // 2), f"person {identity}", "black", font, anchor="mm")
        for row, cell in enumerate(cells):
            sheet.paste(Image.fromarray(cell), (x, TOP + height * row))
    content = io.BytesIO()
    sheet.save(content, "PNG")
    try:
        put(file, content.getvalue())
    except OSError as error:
        raise CsviError(f"{file}: cannot write the contact sheet ({error.strerror or error}).") from error
