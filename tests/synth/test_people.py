"""Materials, bodies and poses."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from csvi.synth import body as bodies
from csvi.synth.body import bone_transforms, draw_body, load_body_model, skin
from csvi.synth.materials import BRIGHT, CLOTH, LUMINANCE, draw_cloth, infrared_reflectance, lightness
from csvi.synth.people import draw_person
from csvi.synth.photo import photograph
from csvi.synth.pose import Gait, draw_gait, pose, relaxed_hands

RHO = (0.5, 0.8)


@pytest.fixture(scope="module")
def person():
    return draw_person(0, 7, RHO)


def test_infrared_is_blind_to_hue():
    red, blue = np.array([0.6, 0.05, 0.05]), np.array([0.05, 0.1, 0.9])
    blue = blue * (red @ LUMINANCE) / (blue @ LUMINANCE)
    assert infrared_reflectance(red, 0.7, 0.4) == pytest.approx(infrared_reflectance(blue, 0.7, 0.4))
    assert infrared_reflectance(red, 0.7, 0.4) != pytest.approx(infrared_reflectance(0.5 * red, 0.7, 0.4))


@pytest.mark.parametrize("camera", [3, 6, 24])
def test_infrared_image_does_not_change_with_the_visible_colours(person, camera):
    shuffled = replace(person, figure=replace(person.figure, visible=person.figure.visible[::-1].copy()))
    one, _ = photograph(person, camera, np.random.default_rng(0), 96, 48)
    other, _ = photograph(shuffled, camera, np.random.default_rng(0), 96, 48)
    assert (one.image == other.image).all()
    seen, _ = photograph(person, 1, np.random.default_rng(0), 96, 48)
    changed, _ = photograph(shuffled, 1, np.random.default_rng(0), 96, 48)
    assert (seen.image != changed.image).any()


@pytest.mark.parametrize("rho", [RHO, (0.1, 0.3)])
def test_measured_rho_lies_in_its_range(rho):
    rng = np.random.default_rng(0)
    cloths = [draw_cloth(rng, tuple(CLOTH) + BRIGHT, rho) for _ in range(4000)]
    seen = [lightness(cloth.visible) for cloth in cloths]
    infrared = [cloth.infrared ** (1 / 2.2) for cloth in cloths]
    slope, _ = np.polyfit(seen, infrared, 1)
    assert rho[0] < slope < rho[1]


def test_body_file_is_compact_and_names_its_source():
    path = Path(bodies.__file__).with_name("body.npz")
    assert path.stat().st_size < 5e6
    with np.load(path) as file:
        assert "CC0" in str(file["provenance"])
    assert load_body_model().skin_weights.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_statures_are_those_of_people():
    rng = np.random.default_rng(0)
    heads = load_body_model().triangles["body"]
    for woman, low, high in ((False, 1.68, 1.82), (True, 1.56, 1.7)):
        statures = [float(draw_body(rng, woman).vertices[heads, 2].max()) for _ in range(60)]
        assert low < np.mean(statures) < high
        assert min(statures) > 1.4
        assert max(statures) < 2.1


def test_rest_pose_leaves_the_body_as_it_is(person):
    body, model = person.body, load_body_model()
    transforms = bone_transforms(body.joints, np.tile(np.eye(3), (len(body.joints), 1, 1)))
    out = np.empty_like(body.vertices)
    skin(body.vertices, model.skin_bones, model.skin_weights, transforms, out)
    assert out == pytest.approx(body.vertices, abs=1e-5)


def posed_joint(person, gait: Gait, name: str) -> np.ndarray:
    bone = load_body_model().bones[name]
    transforms = bone_transforms(person.body.joints, pose(person.body, person.hands, gait))
    return transforms[bone, :, :3] @ person.body.joints[bone] + transforms[bone, :, 3]


def test_arms_and_legs_swing_in_opposition(person):
    gait = replace(draw_gait(np.random.default_rng(0)), phase=np.pi / 2, stride=0.4, arm_swing=0.4, elbows=(0.2, 0.2))
    front = {name: -posed_joint(person, gait, name)[1] for name in ("foot.L", "foot.R", "wrist.L", "wrist.R")}
    assert front["foot.L"] > front["foot.R"] + 0.3
    assert front["wrist.R"] > front["wrist.L"] + 0.2


def test_fingers_are_closed(person):
    gait = draw_gait(np.random.default_rng(1))
    for side in "LR":
        tips = [posed_joint(person, gait, f"finger{finger}-3.{side}") for finger in (2, 3, 4, 5)]
        assert max(np.linalg.norm(a - b) for a, b in pairwise(tips)) < 0.04
        rest = [person.body.joints[load_body_model().bones[f"finger{finger}-3.{side}"]] for finger in (2, 5)]
        assert np.linalg.norm(tips[0] - tips[3]) < np.linalg.norm(rest[0] - rest[1])


def test_a_person_depends_on_the_identity_alone():
    draw_person(0, 3, RHO)
    again, other = draw_person(0, 7, RHO), draw_person(0, 8, RHO)
    first = draw_person(0, 7, RHO)
    assert (first.figure.vertices == again.figure.vertices).all()
    assert (first.figure.visible == again.figure.visible).all()
    assert relaxed_hands(first.body).keys() == first.hands.keys()
    assert first.body.joints.tolist() != other.body.joints.tolist()
