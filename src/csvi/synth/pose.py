"""Poses: people walk or stand, arms beside the body, hands relaxed.

Rotations are given as (bones, 3, 3), each in the axes of the rest pose (see `csvi.synth.body.bone_transforms`).
"""

from dataclasses import dataclass

import numpy as np

from csvi.synth.body import Body, load_body_model

SIDES = (("L", 1.0), ("R", -1.0))
FINGER_CURL = (0.25, 0.6, 0.85)
"""Angle in radians between the hand and each of the three segments of a relaxed finger."""
THUMB_CURL = (0.1, 0.25, 0.4)


@dataclass(frozen=True)
class Gait:
    """How someone moves at one moment; angles in radians."""

    phase: float
    """Of the walking cycle; at 0 the legs pass each other."""
    stride: float
    """Swing of the hip to either side; about 0.4 walking, near 0 standing."""
    arm_swing: float
    """Swing of the shoulder to either side."""
    elbows: tuple[float, float]
    """Bend of the left and of the right elbow."""
    lean: float
    """Of the trunk, to the front."""
    look: tuple[float, float]
    """Turn of the head to the left, and nod."""
    spread: float
    """Of the arms, away from the body."""


def draw_gait(rng: np.random.Generator) -> Gait:
    """A random moment of walking (four times out of five) or standing."""
    walking = rng.random() < 0.8
    stride = rng.uniform(0.28, 0.46) if walking else rng.uniform(0.0, 0.08)
    elbow = rng.uniform(0.15, 0.55)
    elbows = [elbow + rng.normal(0, 0.08), elbow + rng.normal(0, 0.08)]
    if rng.random() < 0.12:  # something held in front: a phone, a hand on the strap
        elbows[rng.integers(2)] = rng.uniform(1.3, 2.0)
    return Gait(
        phase=rng.uniform(0, 2 * np.pi),
        stride=stride,
        arm_swing=stride * rng.uniform(0.6, 1.1) if walking else 0.05,
        elbows=(max(elbows[0], 0.05), max(elbows[1], 0.05)),
        lean=rng.normal(0.04 if walking else 0.0, 0.03),
        look=(rng.normal(0, 0.2), rng.normal(0.08, 0.08)),
        spread=rng.uniform(0.06, 0.16),
    )


def about_x(angle: float) -> np.ndarray:
    """Rotation (3, 3) that moves what hangs down to the front."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def about_z(angle: float) -> np.ndarray:
    """Rotation (3, 3) to the left, seen from above: what points to the front moves to the person's left."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def cross_matrix(vector: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix that takes v to the cross product of `vector` and v."""
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes the direction `start` to `end`."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cross = cross_matrix(np.cross(a, b))
    return np.eye(3) + cross + cross @ cross / (1 + a @ b)


def turn_about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation (3, 3) about `axis`, right-handed."""
    cross = cross_matrix(axis / np.linalg.norm(axis))
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def relaxed_hands(body: Body) -> dict[int, np.ndarray]:
    """Rotations of the finger bones that close the fingers beside each other and curl them a little; bone -> (3, 3)."""
    bones, joints = load_body_model().bones, body.joints
    turns = {}
    for side, sign in SIDES:
        at = {name: joints[bones[f"{name}.{side}"]] for name in ("wrist", "finger2-1", "finger3-1", "finger5-1")}
        along = at["finger3-1"] - at["wrist"]
        across = at["finger2-1"] - at["finger5-1"]
        palm = np.cross(along, across) * sign  # out of the palm
        for finger in range(1, 6):
            names = [f"finger{finger}-{segment}.{side}" for segment in (1, 2, 3)]
            heads = np.array([joints[bones[name]] for name in names])
            segments = np.array([heads[1] - heads[0], heads[2] - heads[1], heads[2] - heads[1]])
            if finger == 1:  # the thumb lies along the hand, a little in front of the palm
                aim = along / np.linalg.norm(along) + 0.35 * across / np.linalg.norm(across)
                bends, hinge = THUMB_CURL, np.cross(aim, palm)
            else:
                aim, bends, hinge = along, FINGER_CURL, np.cross(along, palm)
            above = np.eye(3)
            for name, segment, bend in zip(names, segments, bends, strict=True):
                total = turn_between(segment, turn_about(hinge, bend) @ aim)
                turns[bones[name]] = above.T @ total
                above = total
    return turns


def bump(phase: float, center: float, width: float) -> float:
    """1 at the phase `center`, falling to 0 on both sides of it, around the circle."""
    away = (phase - center + np.pi) % (2 * np.pi) - np.pi
    return float(np.exp(-((away / width) ** 2)))


def knee_bend(phase: float, stride: float) -> float:
    """Bend of a knee whose hip swings with sin(phase): a little after the heel lands, a lot while the leg swings."""
    return 0.05 + stride * (0.35 * bump(phase, 2.3, 0.6) + 1.9 * bump(phase, 2 * np.pi - 0.45, 0.75))


def foot_pitch(phase: float, stride: float) -> float:
    """Pitch of a sole, toes up positive: heel first, then flat, then off the toes."""
    return stride * (0.75 * bump(phase, 1.45, 0.5) - 1.5 * bump(phase, 5.0, 0.8))


def pose(body: Body, hands: dict[int, np.ndarray], gait: Gait) -> np.ndarray:
    """Rotations (b, 3, 3) that put `body` into a moment of its walk; `hands` are its `relaxed_hands`."""
    bones, joints = load_body_model().bones, body.joints
    turns = np.tile(np.eye(3), (len(joints), 1, 1))
    for bone, turn in hands.items():
        turns[bone] = turn

    def direction(start: str, end: str) -> np.ndarray:
        return joints[bones[end]] - joints[bones[start]]

    twist = 0.25 * gait.stride * np.sin(gait.phase)  # the left leg in front turns the shoulders to the left
    for name, share in (("spine04", 0.4), ("spine02", 0.6)):
        turns[bones[name]] = about_z(share * twist) @ about_x(-share * gait.lean)
    turns[bones["neck01"]] = about_z(0.4 * gait.look[0] - 0.5 * twist) @ about_x(-0.4 * gait.look[1])
    turns[bones["head"]] = about_z(0.6 * gait.look[0] - 0.5 * twist) @ about_x(-0.6 * gait.look[1])

    for (side, sign), elbow in zip(SIDES, gait.elbows, strict=True):
        phase = gait.phase + (0 if sign > 0 else np.pi)
        swing = gait.stride * np.sin(phase) + 0.04
        thigh = turn_between(direction(f"upperleg02.{side}", f"lowerleg01.{side}"), np.array([0.02 * sign, -0.02, -1]))
        shin = direction(f"lowerleg01.{side}", f"foot.{side}")
        knee = knee_bend(phase, gait.stride)
        straight = turn_between(thigh @ shin, np.array([0.01 * sign, 0.03, -1]))
        turns[bones[f"upperleg01.{side}"]] = about_x(swing) @ thigh
        turns[bones[f"lowerleg01.{side}"]] = thigh.T @ about_x(-knee) @ straight @ thigh
        leg = about_x(swing - knee) @ straight @ thigh
        foot = about_x(foot_pitch(phase, gait.stride)) @ about_z(-0.05 * sign)
        turns[bones[f"foot.{side}"]] = leg.T @ foot

        arm = -gait.arm_swing * np.sin(phase) + 0.05
        hang = np.array([sign * np.sin(gait.spread), 0, -np.cos(gait.spread)])
        upper = turn_between(direction(f"upperarm02.{side}", f"lowerarm01.{side}"), hang)
        bend = elbow + max(0.0, 0.5 * arm)
        inward = -0.25 * np.sin(bend) * sign
        fore = np.array([inward + 0.3 * hang[0], -np.sin(bend), -np.cos(bend)])
        lower = turn_between(upper @ direction(f"lowerarm01.{side}", f"wrist.{side}"), fore)
        turns[bones[f"upperarm01.{side}"]] = about_x(arm) @ upper
        turns[bones[f"lowerarm01.{side}"]] = upper.T @ lower @ upper
        turns[bones[f"wrist.{side}"]] = turn_between(
            direction(f"wrist.{side}", f"finger3-1.{side}"), direction(f"lowerarm01.{side}", f"wrist.{side}")
        )
    return turns
