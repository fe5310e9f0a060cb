"""The contact sheet: a few people of the benchmark, before several cameras, with their masks."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from csvi.errors import CsviError
from csvi.synth.benchmark import plan_of, put, resolve, shot_generator
from csvi.synth.cameras import CAMERAS
from csvi.synth.people import draw_person
from csvi.synth.photo import photograph
from csvi.synth.settings import SynthConfig

GAP, LEFT, TOP = 4, 84, 22


def write_sheet(file: Path, config: SynthConfig, people: int = 10) -> None:
    """Write a PNG with a column for each of `people` identities: some visible, some infrared images, and two masks."""
    settings = resolve(config)
    plan = plan_of(settings.layout, settings.preset, settings.seed)
    cameras = list(plan.views)
    last = {CAMERAS[camera].infrared: camera for camera in cameras}.values()  # of each spectrum; its mask is shown
    shots = {(shot.identity, shot.camera): shot for shot in plan.shots if shot.index == 1}
    everyone = sorted({shot.identity for shot in plan.shots})
    chosen = [identity for identity in everyone if all((identity, camera) in shots for camera in cameras)][:people]
    columns = []
    for identity in chosen:
        person = draw_person(settings.seed, identity, settings.rho)
        cells = []
        for camera in cameras:
            rng = shot_generator(settings.seed, shots[identity, camera])
            photo, _ = photograph(person, camera, rng, settings.height, settings.width)
            cells += [photo.image]
            if camera in last:
                cells += [np.repeat(photo.mask[:, :, None], 3, axis=2)]
        columns.append(cells)
    labels = []
    for camera, label in plan.views.items():
        labels += [label, "mask of\nthe person\nabove"] if camera in last else [label]
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
        raise CsviError(f"{file}: cannot write the contact sheet ({error.strerror or error})") from error
