"""Randomised pictures of synthetic people with exact masks, to train a segmenter that has to work on photographs.

A person of the synthetic benchmark is cut out, recoloured, put before another background with other people behind and
things in front, seen as by daylight, a grey camera or a thermal one, and degraded as cheap cameras do. What matters is
that nothing but the shape of a person stays the same: the renderer's own backgrounds, colours and sharpness would be
learnt instead (docs/masks.md says what each part is worth).

Pictures are (H, W, 3) float32 in [0, 1], masks (H, W) float32 in [0, 1].
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator


class Window(NamedTuple):
    """The part of a source image that fills a picture; in pixels of the source."""

    x: float
    y: float
    """Its centre."""
    width: float
    height: float
    angle: float = 0.0
    """Radians by which the source is turned."""
    shear: float = 0.0
    mirror: bool = False


class View(NamedTuple):
    """A person seen through a window."""

    picture: np.ndarray
    alpha: np.ndarray
    """(H, W), the person's share of each pixel."""


class Pixels(Protocol):
    """Images that are read one at a time, such as `csvi.data.cache.CachedPixels`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


@dataclass(frozen=True)
class People:
    """Images of synthetic people of one size, (n, h, w, 3) uint8, with their masks, (n, h, w) uint8, 255 = person."""

    images: Pixels
    masks: Pixels
    infrared: Sequence[bool]

    def __len__(self) -> int:
        return len(self.images)

    def box(self, index: int) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom of a person's pixels; None where there is nobody."""
        rows, columns = (np.flatnonzero((self.masks[index] > 127).any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def view(self, index: int, window: Window, height: int, width: int) -> View:
        """See a person through a window, height × width pixels; beyond the source its edge goes on, without person."""
        pad = 96
        image = np.pad(self.images[index], ((pad, pad), (pad, pad), (0, 0)), mode="edge")
        mask = np.pad(self.masks[index], pad)
        window = window._replace(x=window.x + pad, y=window.y + pad)
        picture, alpha = (_through(Image.fromarray(pixels), window, height, width) for pixels in (image, mask))
        return View(picture, alpha)


def draw_sample(people: People, rng: Rng, height: int = 192, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture, (height, width, 3) uint8, and the mask of the person in its middle, (height, width) uint8."""
    index, box = _somebody(people, rng)
    person = people.view(index, _crop(box, rng), height, width)
    if rng.random() < 0.2:  # as rendered, before the background of the benchmark
        (picture, mask), others = person, np.zeros_like(person.alpha)
    else:
        picture, mask, others = _compose(people, person, rng)
    picture, mask = _in_front(picture, mask, rng)
    spectrum = rng.random()
    if spectrum < 0.22:
        picture = thermal(picture, mask, others, rng)
    elif spectrum < 0.42:
        picture = grey(picture, rng)
    return _to_bytes(degrade(picture, rng)), _to_bytes(mask)


def _somebody(people: People, rng: Rng) -> tuple[int, tuple[int, int, int, int]]:
    while True:
        index = int(rng.integers(len(people)))
        box = people.box(index)
        if box is not None and box[3] - box[1] >= 24:
            return index, box


def _crop(box: tuple[int, int, int, int], rng: Rng) -> Window:
    """A window around a person as detectors and people draw them: tight or loose, a little turned, often mirrored."""
    left, top, right, bottom = box
    low, high = (-0.01, 0.12) if rng.random() < 0.7 else (-0.08, 0.30)
    margins = rng.uniform(low, high, 4)
    width, height = right - left, bottom - top
    x0, x1 = left - margins[0] * width, right + margins[1] * width
    y0, y1 = top - margins[2] * height, bottom + margins[3] * height
    if rng.random() < 0.35:  # many crops of the field are widened to 2:1
        middle, half = (x0 + x1) / 2, max(x1 - x0, (y1 - y0) / 2) / 2
        x0, x1 = middle - half, middle + half
    return Window(
        (x0 + x1) / 2,
        (y0 + y1) / 2,
        x1 - x0,
        y1 - y0,
        angle=float(rng.normal(0, 0.04)),
        shear=float(rng.normal(0, 0.05)),
        mirror=bool(rng.random() < 0.5),
    )


def _compose(people: People, person: View, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put a person before another background, with other people behind and perhaps one in front.

    Returns the picture, the person's share of each pixel, and the others'.
    """
    height, width = person.alpha.shape
    picture = backdrop(people, rng, height, width)
    others = np.zeros((height, width), np.float32)
    for _ in range(rng.choice(3, p=[0.4, 0.4, 0.2])):
        behind = _neighbour(people, rng, height, width, (0.45, 1.1), (0.6, 1.1))
        picture, others = _over(picture, behind.picture, behind.alpha), np.maximum(others, behind.alpha)
    alpha = _blurred(person.alpha, rng.uniform(0.4, 1.2)) if rng.random() < 0.3 else person.alpha
    picture, mask = _over(picture, recolour(*person, rng), alpha), person.alpha
    others = others * (1 - mask)
    if rng.random() < 0.2:
        front = _neighbour(people, rng, height, width, (0.55, 1.0), (0.8, 1.3))
        picture, others = _over(picture, front.picture, front.alpha), np.maximum(others, front.alpha)
        mask = mask * (1 - front.alpha)
    return picture, mask, others


def _neighbour(
    people: People, rng: Rng, height: int, width: int, beside: tuple[float, float], size: tuple[float, float]
) -> View:
    """Somebody else, so many widths of the picture beside its middle, and so high in parts of its height."""
    index, (left, top, right, bottom) = _somebody(people, rng)
    side = rng.choice([-1, 1]) * rng.uniform(*beside)
    tall = (bottom - top) / rng.uniform(*size)
    wide = tall * rng.uniform(0.4, 0.6)
    window = Window(
        (left + right) / 2 - side * wide,
        (top + bottom) / 2 + rng.normal(0, 0.06) * tall,
        wide,
        tall,
        angle=float(rng.normal(0, 0.04)),
    )
    picture, alpha = people.view(index, window, height, width)
    return View(recolour(picture, alpha, rng), alpha)


def _in_front(picture: np.ndarray, mask: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Sometimes put a thing before the person: a box at the foot, a post, a bush, anything with corners."""
    if rng.random() > 0.25:
        return picture, mask
    height, width = mask.shape
    shape = Image.new("L", (width, height))
    draw = ImageDraw.Draw(shape)
    x, y = rng.uniform(0, width), rng.uniform(0.45, 1.0) * height
    match rng.integers(4):
        case 0:
            half = rng.uniform(0.1, 0.35) * width
            draw.rectangle([x - half, y, x + half, height], fill=255)
        case 1:
            half = rng.uniform(0.02, 0.07) * width
            draw.rectangle([x - half, 0, x + half, height], fill=255)
        case 2:
            rx, ry = rng.uniform(0.1, 0.4) * width, rng.uniform(0.05, 0.25) * height
            draw.ellipse([x - rx, y - ry, x + rx, y + ry], fill=255)
        case _:
            corners = rng.normal(0, 0.2, (int(rng.integers(3, 7)), 2)) * [width, height / 2] + [x, y]
            draw.polygon([tuple(corner) for corner in corners], fill=255)
    alpha = _from_image(shape)
    if rng.random() < 0.5:
        alpha = _blurred(alpha, rng.uniform(0.3, 1.0))
    return _over(picture, surface(rng, height, width), alpha), mask * (1 - alpha)


# --- what is behind and in front -------------------------------------------------------------------------------------


def backdrop(people: People, rng: Rng, height: int, width: int) -> np.ndarray:
    """Draw a background: a made-up one, a strip of the benchmark beside a person, or both mixed."""
    if rng.random() < 0.35:
        scene = _strip(people, rng, height, width)
        if rng.random() < 0.7:
            return scene
        return _mix(scene, made_up(rng, height, width), rng)
    scene = made_up(rng, height, width)
    if rng.random() < 0.3:
        scene = _mix(scene, made_up(rng, height, width), rng)
    return scene


def _mix(first: np.ndarray, second: np.ndarray, rng: Rng) -> np.ndarray:
    share = np.float32(rng.uniform(0.2, 0.8))
    return share * first + (1 - share) * second


def _strip(people: People, rng: Rng, height: int, width: int) -> np.ndarray:
    """What is beside a person on an image of the benchmark, stretched to the picture."""
    index, (left, _, right, _) = _somebody(people, rng)
    image = people.images[index]
    whole = image.shape[1]
    x0, x1 = (0, left) if left > whole - right else (right, whole)
    if x1 - x0 < 6:
        return made_up(rng, height, width)
    strip = Image.fromarray(image[:, x0:x1])
    if rng.random() < 0.5:
        strip = strip.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _from_image(strip.resize((width, height), Image.Resampling.BILINEAR))


def made_up(rng: Rng, height: int, width: int) -> np.ndarray:
    """Draw a background of nothing known: surfaces above and below a horizon, shapes and lines on them, noise."""
    scene = surface(rng, height, width)
    if rng.random() < 0.6:
        ground = surface(rng, height, width)
        horizon = int(rng.uniform(0.15, 0.9) * height)
        scene[horizon:] = ground[horizon:]
    image = Image.fromarray(_to_bytes(scene))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 26)) if rng.random() < 0.8 else 0):
        _draw_shape(draw, rng, height, width)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    scene = _from_image(image)
    if rng.random() < 0.5:
        scene = scene * (1 + rng.uniform(0.05, 0.3) * octaves(rng, height, width)[..., None])
    return scene.clip(0, 1).astype(np.float32)


def surface(rng: Rng, height: int, width: int) -> np.ndarray:
    """Draw a surface that fills a picture: plain, shaded, cloudy, or in stripes or tiles."""
    first, second = colour(rng), colour(rng)
    share = _pattern(rng, height, width).astype(np.float32)[..., None]
    return (first + (second - first) * share).clip(0, 1)


def _pattern(rng: Rng, height: int, width: int) -> np.ndarray:
    """Draw the share of the second of two colours at each pixel of a surface."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    match rng.integers(5):
        case 0:
            return np.zeros((height, width))
        case 1:
            angle = rng.uniform(0, 2 * np.pi)
            return np.cos(angle) * x / width + np.sin(angle) * y / height
        case 2:
            return 0.5 + 0.5 * octaves(rng, height, width)
        case 3:
            angle, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
            wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / period + rng.uniform(0, 6))
            return wave > rng.uniform(-0.6, 0.6) if rng.random() < 0.5 else 0.5 + 0.5 * wave
        case _:
            size, joint = rng.uniform(5, 30, 2), rng.uniform(0.06, 0.3)
            return ((x / size[0]) % 1 < joint) | ((y / size[1]) % 1 < joint)


def colour(rng: Rng) -> np.ndarray:
    """Draw a colour, (3,), most often a dull one."""
    level = rng.uniform(0.02, 0.98)
    return (level + rng.normal(0, 0.08 if rng.random() < 0.6 else 0.3, 3)).clip(0, 1).astype(np.float32)


def octaves(rng: Rng, height: int, width: int) -> np.ndarray:
    """Draw cloudy noise, (height, width) float32 of mean 0 and a spread of about 1, at most scales."""
    noise = np.zeros((height, width), np.float32)
    fall = rng.uniform(0.4, 0.9)
    for octave in range(1, 6):
        cells = rng.normal(0, 1, (2**octave * 2, 2**octave)).astype(np.float32)
        scaled = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        noise += np.float32(fall**octave) * np.asarray(scaled)
    return noise / max(float(noise.std()), 1e-6)


def _draw_shape(draw: ImageDraw.ImageDraw, rng: Rng, height: int, width: int) -> None:
    fill = tuple(int(255 * value) for value in colour(rng))
    x, y = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 1.1) * height
    match rng.integers(4):
        case 0:
            size = rng.uniform(0.05, 0.5, 2) * [width, height / 2]
            draw.rectangle([x, y, x + size[0], y + size[1]], fill=fill)
        case 1:
            size = rng.uniform(0.03, 0.4, 2) * [width, height / 2]
            draw.ellipse([x, y, x + size[0], y + size[1]], fill=fill)
        case 2:
            end = (x + rng.normal(0, width), y + rng.normal(0, height / 2))
            draw.line([(x, y), end], fill=fill, width=int(rng.integers(1, 8)))
        case _:
            corners = rng.normal(0, 0.25, (int(rng.integers(3, 8)), 2)) * [width, height / 2] + [x, y]
            draw.polygon([tuple(corner) for corner in corners], fill=fill)


# --- colours and spectra ---------------------------------------------------------------------------------------------


def recolour(picture: np.ndarray, alpha: np.ndarray, rng: Rng) -> np.ndarray:
    """Give a person other colours: random curves, another colour below the waist, a texture, another light."""
    if rng.random() < 0.5:
        picture = np.stack([curve(rng)(picture[..., c]) for c in rng.permutation(3)], axis=2)
    rows = np.flatnonzero((alpha > 0.5).any(1))
    if len(rows) and rng.random() < 0.5:
        waist = int(rows[0] + rng.uniform(0.4, 0.62) * (rows[-1] - rows[0]))
        factors = np.exp(rng.normal(0, 0.45, (2, 3)))
        below = np.arange(len(picture))[:, None, None] >= waist
        picture = picture * np.where(below, factors[1], factors[0])
    if rng.random() < 0.4:
        pattern = surface(rng, *alpha.shape)
        picture = picture * (1 + rng.uniform(0.2, 0.9) * (pattern - pattern.mean()))
    return (picture * rng.uniform(0.5, 1.5)).clip(0, 1).astype(np.float32)


def curve(rng: Rng) -> Callable[[np.ndarray], np.ndarray]:
    """Draw a curve of grey levels from [0, 1] to [0, 1], smooth and not monotone."""
    knots = rng.uniform(0, 1, 5)
    table = np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, 5), knots).astype(np.float32)
    return lambda values: table[(values.clip(0, 1) * 255).astype(np.uint8)]


def grey(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """See a picture as a near infrared camera might: one channel, an unknown mixture of colours, sometimes inverted."""
    mixed = picture @ rng.dirichlet((1, 1, 1)).astype(np.float32)
    if rng.random() < 0.3:
        mixed = 1 - mixed
    return np.repeat(mixed[..., None], 3, axis=2)


def thermal(picture: np.ndarray, mask: np.ndarray, others: np.ndarray, rng: Rng) -> np.ndarray:
    """See a picture as a thermal camera might: warm people before a cooler scene, soft edges, either polarity."""
    luminance = picture.mean(2)
    body, scene = curve(rng)(luminance), rng.uniform(0, 0.65) * curve(rng)(luminance)
    level, spread = rng.uniform(0.35, 1), rng.uniform(0.1, 0.5)
    body = level * (1 - spread + spread * body)
    rows = np.flatnonzero((mask > 0.5).any(1))
    if len(rows):
        along = ((np.arange(len(mask)) - rows[0]) / max(rows[-1] - rows[0], 1)).clip(0, 1)  # 0 the head, 1 the feet
        warmth = 1 + rng.uniform(0, 0.3) * (along < 0.16) - rng.uniform(0, 0.8) * (along - 0.55).clip(0)
        body = body * warmth[:, None]
    warm = np.maximum(mask, others)
    edge = _blurred(warm, rng.uniform(0.6, 2.5))
    seen = edge * body + (1 - edge) * scene + rng.uniform(0, 0.15) * _blurred(warm, rng.uniform(6, 16))
    if rng.random() < 0.25:
        seen = 1 - seen
    return np.repeat(seen.clip(0, 1)[..., None], 3, axis=2).astype(np.float32)


# --- what cameras do to a picture ------------------------------------------------------------------------------------


def degrade(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Spoil a picture: light, contrast, colour cast, sharpness, few pixels, noise, JPEG."""
    height, width = picture.shape[:2]
    mean = picture.mean()
    picture = (picture - mean) * np.exp(rng.normal(0, 0.3)) + mean + rng.normal(0, 0.1)
    if rng.random() < 0.4:
        picture = picture * np.exp(rng.normal(0, 0.12, 3))
    picture = picture.clip(0, 1) ** np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.4:
        middle = picture.mean(2, keepdims=True)
        picture = middle + rng.uniform(0, 2) * (picture - middle)
    if rng.random() < 0.3:
        angle, y, x = rng.uniform(0, 2 * np.pi), *np.mgrid[0:height, 0:width]
        slope = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
        picture = picture * (1 + rng.uniform(0, 0.8) * slope[..., None])
    image = Image.fromarray(_to_bytes(picture))
    softness = rng.random()
    if softness < 0.4:
        share = rng.uniform(0.25, 0.9)
        small = image.resize((max(int(share * width), 8), max(int(share * height), 8)), Image.Resampling.BILINEAR)
        image = small.resize((width, height), Image.Resampling.BILINEAR)
    elif softness < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    elif softness < 0.7:
        image = image.filter(ImageFilter.UnsharpMask(1.5, int(rng.uniform(50, 200)), 0))
    if rng.random() < 0.5:
        picture = _from_image(image)
        same = rng.random() < 0.5  # the same noise in all channels, as a grey camera has
        noise = rng.standard_normal((height, width, 1 if same else 3), dtype=np.float32)
        image = Image.fromarray(_to_bytes(picture + rng.uniform(0.005, 0.09) * noise))
    if rng.random() < 0.4:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(20, 91)))
        image = Image.open(file).convert("RGB")
    return _from_image(image)


# --- pictures --------------------------------------------------------------------------------------------------------


def _through(image: Image.Image, window: Window, height: int, width: int) -> np.ndarray:
    """Sample an image through a window, bilinear: float32 in [0, 1]."""
    u = np.array([[window.width / width, 0], [0, window.height / height]])
    if window.mirror:
        u[0, 0] = -u[0, 0]
    cos, sin = np.cos(window.angle), np.sin(window.angle)
    turned = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, window.shear], [0, 1]]) @ u
    offset = np.array([window.x, window.y]) - turned @ [width / 2, height / 2]
    coefficients = (turned[0, 0], turned[0, 1], offset[0], turned[1, 0], turned[1, 1], offset[1])
    return _from_image(
        image.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    )


def _over(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None]
    return share * above + (1 - share) * below


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    return _from_image(Image.fromarray(_to_bytes(values)).filter(ImageFilter.GaussianBlur(sigma)))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _from_image(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255
