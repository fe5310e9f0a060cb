"""What is in the images: masks, infrared, and nothing that tells who it is but the person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csvi.data.llcm import CAMERAS as LLCM_CAMERAS
from csvi.data.records import Modality
from csvi.data.sysu import MODALITIES
from csvi.synth import llcm, sysu
from csvi.synth.benchmark import plan_of, shot_generator
from csvi.synth.cameras import CAMERAS
from csvi.synth.people import draw_person
from csvi.synth.photo import NOTHING, OCCLUDED, PLANT, draw_moment, photograph
from csvi.synth.plan import Shot

INFRARED = (3, 6)


def look(root: Path, layout: str) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """(identity, camera, image, mask) of every image."""
    return [
        (
            shot.identity,
            shot.camera,
            np.asarray(Image.open(root / shot.path)).astype(int),
            np.asarray(Image.open(root / shot.mask)).astype(int),
        )
        for shot in plan_of(layout, "tiny", 0).shots
    ]


@pytest.fixture(scope="module")
def photos(tiny):
    """Those of SYSU-MM01's cameras."""
    return look(tiny, "sysu")


@pytest.fixture(scope="module")
def seen(written):
    """Those of a layout."""
    layout, root = written
    return look(root, layout)


def test_cameras_are_those_of_sysu():
    assert {camera: Modality(CAMERAS[camera].infrared) for camera in range(1, 7)} == MODALITIES
    assert CAMERAS[2].place is CAMERAS[3].place
    assert (CAMERAS[2].height, CAMERAS[2].pitch) == (CAMERAS[3].height, CAMERAS[3].pitch)


def test_cameras_are_those_of_llcm():
    for modality, offset in llcm.OFFSETS.items():
        assert [camera - offset for camera in CAMERAS if 0 < camera - offset < 10] == list(LLCM_CAMERAS[modality])
    for number in LLCM_CAMERAS[Modality.INFRARED]:
        one, twin = CAMERAS[10 + number], CAMERAS[20 + number]
        assert (one.infrared, twin.infrared) == (False, True)
        assert one.place is twin.place
        assert (one.height, one.pitch, one.side) == (twin.height, twin.pitch, twin.side)


def test_infrared_is_grey_and_visible_is_not(seen):
    for _, camera, image, _ in seen:
        hue = np.ptp(image, axis=2)
        assert (hue.max() == 0) == CAMERAS[camera].infrared


def test_no_image_is_too_dark_or_too_bright(seen):
    for _, camera, image, mask in seen:
        assert (60 if camera in (1, 2, 4, 5) else 35) < image.mean() < 200, camera
        assert image[mask > 127].mean() > 18
        assert image.std() > 8


def test_low_light_is_darker_than_the_day():
    person = draw_person(0, 1, (0.5, 0.8))
    day, evening = (
        np.mean([photograph(person, camera, np.random.default_rng(0), 96, 48)[0].image.mean() for camera in cameras])
        for cameras in ((1, 2, 4, 5), range(11, 20))
    )
    assert 40 < evening < 0.7 * day


def test_masks_show_a_whole_person_inside_the_frame(seen):
    shares = [(mask > 127).mean() for *_, mask in seen]
    assert min(shares) > 0.08
    assert max(shares) < 0.6
    assert 0.2 < np.mean(shares) < 0.4
    for *_, mask in seen:
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() == 0
        assert mask.max() == 255


def test_mask_is_where_the_person_is():
    """Painting the person white changes the image inside the mask and not outside it."""
    dark = draw_person(0, 1, (0.5, 0.8))
    black, white = np.zeros_like(dark.figure.visible), np.ones_like(dark.figure.visible)
    images = []
    for paint in (black, white):
        painted = replace(dark, figure=replace(dark.figure, visible=paint))
        photo, _ = photograph(painted, 4, np.random.default_rng(5), 144, 72)
        images.append(photo.image.astype(int))
    changed = np.abs(images[1] - images[0]).max(axis=2)
    assert changed[photo.mask == 255].mean() > 80
    far = np.asarray(Image.fromarray(photo.mask).resize((18, 36)).resize((72, 144))) == 0  # off the blur of the edge
    assert changed[far].mean() < 2


def test_occluders_cut_the_mask():
    person = draw_person(0, 1, (0.5, 0.8))
    moments = {seed: draw_moment(np.random.default_rng(seed), CAMERAS[1]) for seed in range(400)}
    seeds = [seed for seed, moment in moments.items() if moment.occluder[0] != NOTHING]
    assert 0.7 * OCCLUDED < len(seeds) / 400 < 1.3 * OCCLUDED
    cut = 0
    for seed in [seed for seed in seeds if moments[seed].occluder[0] != PLANT][:10]:  # plants are ragged
        photo, moment = photograph(person, 1, np.random.default_rng(seed), 96, 48)
        left, right, top = moment.occluder[1:4]
        rows = slice(max(0, int((top + 0.1) * 96)), 96)
        columns = slice(max(0, round(left * 48) + 2), max(0, round(right * 48) - 2))
        assert photo.mask[rows, columns].sum() == 0
        cut += photo.mask[rows].sum() > 0
    assert cut > 0


def between_identities(values: np.ndarray) -> float:
    """Variance of the identities' means of (identities, images), in units of what independent draws would give."""
    return float(values.mean(axis=1).var(ddof=1) / (values.var(axis=1, ddof=1).mean() / values.shape[1]))


@pytest.mark.parametrize("camera", CAMERAS)
def test_moments_do_not_depend_on_the_identity(camera):
    drawn = []
    for identity in range(1, 41):
        for index in range(1, 13):
            m = draw_moment(shot_generator(0, Shot(identity, camera, index, "")), CAMERAS[camera])
            drawn.append(
                (m.gait.phase, m.gait.stride, m.yaw, *m.spot, *m.margin, *m.shift, m.exposure, m.blur, m.quality)
            )
    values = np.array(drawn).reshape(40, 12, -1)
    for column in range(values.shape[2]):
        assert 0.3 < between_identities(values[:, :, column]) < 2.2  # F(39, 440): mean 1, standard deviation 0.25


def matched_in_other_cameras(photos, features: np.ndarray) -> float:
    """Share of images whose nearest neighbour in other cameras of their modality shows the same identity.

    features (n, k) are taken relative to the camera's mean and spread.
    """
    identities, cameras = np.array([photo[0] for photo in photos]), np.array([photo[1] for photo in photos])
    scaled = features.astype(float)
    for camera in set(cameras.tolist()):
        own = cameras == camera
        scaled[own] = (scaled[own] - scaled[own].mean(axis=0)) / (scaled[own].std(axis=0) + 1e-9)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    infrared = np.isin(cameras, INFRARED)
    distance[(cameras[:, None] == cameras) | (infrared[:, None] != infrared)] = np.inf
    return float((identities[distance.argmin(axis=1)] == identities).mean())


def chance_at_most(photos) -> float:
    """What guessing one of 12 identities reaches, and three standard deviations more."""
    return 1 / 12 + 3 * np.sqrt(1 / 12 * 11 / 12 / len(photos))


def test_background_does_not_tell_who_it_is(photos):
    features = []
    for _, _, image, mask in photos:
        background = (mask == 0).astype(float)
        blocks = []
        for rows in np.array_split(np.arange(96), 6):
            for columns in (slice(0, 12), slice(36, 48)):
                weight = background[rows][:, columns, None]
                pixels = image[rows][:, columns]
                blocks.append((pixels * weight).sum((0, 1)) / max(1.0, float(weight.sum())))
        features.append(np.concatenate(blocks))
    assert matched_in_other_cameras(photos, np.array(features)) < chance_at_most(photos)


def test_size_of_the_file_does_not_tell_who_it_is(tiny, photos):
    sizes = [(tiny / shot.path).stat().st_size for shot in sysu.plan("tiny", 0).shots]
    assert matched_in_other_cameras(photos, np.array(sizes)[:, None]) < chance_at_most(photos)


def test_the_person_tells_who_it_is(photos):
    """The same measure on the colours of the person, so that the two tests above can fail."""
    features = []
    for _, _, image, mask in photos:
        weight = (mask / 255)[:, :, None]
        thirds = [(image[rows] * weight[rows]).sum((0, 1)) / weight[rows].sum() for rows in np.split(np.arange(96), 3)]
        features.append(np.concatenate(thirds))
    assert matched_in_other_cameras(photos, np.array(features)) > 2 * chance_at_most(photos)
