"""The textures of the atlas: tileable 1/f noise and drawn structure, strong at middle frequencies."""

import cv2
import numpy as np

FACADES = 8
_STOREY = 3.2  # metres; a facade texture is four storeys high and as wide


def noise(rng: np.random.Generator, size: int, beta: float, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Tileable noise with amplitude spectrum ``1 / f^beta``, mean 0, standard deviation 1, clipped at 2.5."""
    fy = np.fft.fftfreq(size)[:, None] * size * stretch[1]
    fx = np.fft.rfftfreq(size)[None] * size * stretch[0]
    radius = np.hypot(fx, fy)
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / np.maximum(radius, 1.5) ** beta
    field = np.fft.irfft2(spectrum, s=(size, size))
    return np.clip(field / field.std(), -2.5, 2.5).astype(np.float32)


def _pack(rgb: np.ndarray, alpha: np.ndarray | float) -> np.ndarray:
    alpha = np.broadcast_to(np.asarray(alpha, np.float32), rgb.shape[:2])
    return (np.dstack([rgb, alpha]).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _grey(value: np.ndarray) -> np.ndarray:
    return np.repeat(value[..., None], 3, 2)


def _speckled(rng, size, level, amount, beta, colour=(1, 1, 1)):
    return _grey(level + amount * noise(rng, size, beta)) * np.asarray(colour, np.float32)


def facade(rng: np.random.Generator, size: int = 512) -> np.ndarray:
    """Four storeys of windows in brick or plaster, shops or doors at street level."""
    scale = size / (4 * _STOREY)
    wall = 0.78 + 0.07 * noise(rng, size, 1.4) + 0.05 * noise(rng, size, 0.6)
    if rng.random() < 0.5:  # courses of large blocks
        course, length = rng.choice([16, 32]), rng.choice([32, 64])
        rows = np.arange(size) // course
        cols = (np.arange(size)[None] + (rows % 2)[:, None] * length // 2) % size // length
        shade = rng.normal(0, 0.11, (size // course, size // length)).astype(np.float32)
        wall += shade[rows[:, None], cols]
        wall[np.arange(size) % course < 2] -= 0.17
        wall -= 0.12 * ((np.arange(size)[None] + (rows % 2)[:, None] * length // 2) % length < 2)
    for _ in range(8):  # stains run down
        x, w = rng.integers(size), rng.integers(6, 40)
        wall[:, np.arange(x, x + w) % size] *= rng.uniform(0.82, 1.1)
    rgb, alpha = _grey(wall), np.ones((size, size), np.float32)
    columns = int(rng.integers(3, 7))
    pitch = size / columns
    win_w, win_h = pitch * rng.uniform(0.38, 0.62), _STOREY * scale * rng.uniform(0.42, 0.62)
    frame, sill = rng.uniform(0.35, 1.0), rng.uniform(0.2, 1.0)
    for storey in range(4):
        top = storey * _STOREY * scale
        if rng.random() < 0.6:
            cv2.rectangle(rgb, (0, int(top) + 2), (size, int(top + 0.22 * scale) + 2), (sill,) * 3, -1)
        for i in range(columns):
            x0, y0 = i * pitch + (pitch - win_w) / 2, top + 0.28 * _STOREY * scale
            w, h = win_w, win_h
            if storey == 3:  # street level
                kind = rng.random()
                x0, w = (i * pitch + 0.08 * pitch, 0.84 * pitch) if kind < 0.4 else (x0, w)
                h = (0.72 if kind < 0.7 else 0.5) * _STOREY * scale
            a, b = (int(x0), int(y0)), (int(x0 + w), int(y0 + h))
            cv2.rectangle(rgb, (a[0] - 4, a[1] - 4), (b[0] + 4, b[1] + 4), (frame,) * 3, -1)
            glass = rng.uniform(0.08, 0.5) * np.array([0.85, 0.95, 1.1])
            if storey == 3 and rng.random() < 0.5:
                glass = rng.uniform(0.1, 0.9, 3)  # shop windows are colourful
            gradient = np.linspace(rng.uniform(0.7, 1.5), rng.uniform(0.6, 1.1), b[1] - a[1], dtype=np.float32)
            rgb[a[1] : b[1], a[0] : b[0]] = gradient[:, None, None] * glass
            alpha[a[1] : b[1], a[0] : b[0]] = 0.15
            if rng.random() < 0.7:
                middle = (a[0] + b[0]) // 2
                cv2.rectangle(rgb, (middle - 2, a[1]), (middle + 2, b[1]), (frame,) * 3, -1)
            if rng.random() < 0.4:  # blind, partly down
                rgb[a[1] : a[1] + int(h * rng.uniform(0.2, 0.8)), a[0] : b[0]] = rng.uniform(0.4, 0.95)
            cv2.rectangle(rgb, (a[0] - 7, b[1] + 3), (b[0] + 7, b[1] + 9), (sill,) * 3, -1)
    if rng.random() < 0.5:  # signs above the shops
        y = int(3.1 * _STOREY * scale)
        for x in range(0, size, 128):
            cv2.rectangle(rgb, (x + 8, y), (x + 112, y + 18), tuple(rng.uniform(0.1, 1, 3)), -1)
    return _pack(rgb, alpha)


def foliage(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Clumps of leaves: dark gaps, bright tips."""
    clumps = noise(rng, size, 1.0) * 0.22 + noise(rng, size, 1.8) * 0.16 + 0.52
    leaf = np.where(noise(rng, size, 0.8) > 0.9, 0.25, 0.0)
    value = clumps + leaf
    colour = np.dstack([value * 0.9 + 0.06 * noise(rng, size, 1.5), value, value * 0.75])
    return _pack(colour.astype(np.float32), 1.0)


def _wheel(rng, size=64, spokes=5, rim=0.72):
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    hub = 0.35 + 0.45 * (np.cos(angle * spokes) > 0.1)
    value = np.where(radius < rim, hub, 0.09 + 0.03 * (np.cos(angle * 16) > 0))
    value = np.where(radius < 0.16, 0.75, value)
    return _pack(_grey(value.astype(np.float32)), 0.0)


def _car_side(rng, size=128):
    rgb = _grey(np.linspace(1.05, 0.72, size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32))
    alpha = np.ones((size, size), np.float32)
    for x in (34, 66, 96):
        cv2.line(rgb, (x, 4), (x, 100), (0.35,) * 3, 1)
    for x in (58, 90):
        cv2.rectangle(rgb, (x - 8, 22), (x - 2, 26), (0.25,) * 3, -1)
    cv2.rectangle(rgb, (0, 72), (size, 80), (0.55,) * 3, -1)
    cv2.rectangle(rgb, (0, 106), (size, 128), (0.22,) * 3, -1)
    for x in (24, 104):  # wheel arches
        cv2.circle(rgb, (x, 124), 22, (0.08,) * 3, -1)
        cv2.circle(alpha, (x, 124), 22, 0.0, -1)
    for x, colour in ((2, (0.9, 0.25, 0.15)), (124, (0.95, 0.9, 0.8))):
        cv2.rectangle(rgb, (x - 4, 14), (x + 4, 28), colour, -1)
        cv2.rectangle(alpha, (x - 4, 14), (x + 4, 28), 0.0, -1)
    return _pack(rgb, alpha)


def _car_end(rng, rear: bool, size=128):
    rgb = _grey(np.linspace(1.0, 0.7, size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32))
    alpha = np.ones((size, size), np.float32)

    def part(x0, y0, x1, y1, colour):
        for a, b in ((x0, x1), (size - 1 - x1, size - 1 - x0)):
            cv2.rectangle(rgb, (a, y0), (b, y1), colour, -1)
            cv2.rectangle(alpha, (a, y0), (b, y1), 0.0, -1)

    if rear:
        part(4, 22, 26, 52, (0.75, 0.08, 0.06))
        part(8, 38, 20, 46, (0.95, 0.75, 0.5))
        cv2.line(rgb, (0, 64), (size, 64), (0.3,) * 3, 2)
    else:
        part(4, 26, 30, 46, (0.95, 0.95, 0.9))
        part(44, 30, 84, 58, (0.12, 0.12, 0.13))
        part(4, 84, 20, 94, (0.85, 0.8, 0.5))
    part(42, 70, 64, 86, (0.92, 0.92, 0.86))
    for x in range(46, 82, 6):
        cv2.rectangle(rgb, (x, 74), (x + 3, 82), (0.1,) * 3, -1)
    part(0, 100, 64, 127, (0.12, 0.12, 0.13))
    return _pack(rgb, alpha)


def _glass(rng, size=64):
    rgb = np.linspace(0.42, 0.14, size, dtype=np.float32)[:, None, None] * np.ones((1, size, 3), np.float32) * (0.85, 0.97, 1.1)
    rgb = np.ascontiguousarray(rgb.astype(np.float32))
    alpha = np.zeros((size, size), np.float32)
    cv2.rectangle(rgb, (10, 34), (20, 63), (0.06,) * 3, -1)  # seats
    cv2.rectangle(rgb, (40, 34), (52, 63), (0.06,) * 3, -1)
    cv2.line(rgb, (8, 60), (28, 4), (0.6,) * 3, 2)
    for x in (0, size // 2, size - 1):
        cv2.line(rgb, (x, 0), (x, size), (0.8,) * 3, 4)
        cv2.line(alpha, (x, 0), (x, size), 1.0, 4)
    cv2.rectangle(rgb, (0, 0), (size, 3), (0.8,) * 3, -1)
    cv2.rectangle(alpha, (0, 0), (size, 3), 1.0, -1)
    return _pack(rgb, alpha)


def _cargo(rng, kind, size=256):
    rgb = _speckled(rng, size, 0.85, 0.05, 1.4)
    alpha = np.ones((size, size), np.float32)
    if kind == 0:
        for x in range(0, size, 16):
            cv2.line(rgb, (x, 0), (x, size), (0.6,) * 3, 2)
        cv2.rectangle(rgb, (20, 70), (236, 150), (0.95, 0.95, 0.95), -1)
        for i, x in enumerate(range(34, 220, 27)):
            cv2.rectangle(rgb, (x, 86), (x + 8 + 8 * (i % 2), 134), (0.15, 0.2, 0.55), -1)
        cv2.rectangle(alpha, (20, 70), (236, 150), 0.0, -1)
    else:
        for i in range(5):
            cv2.line(rgb, (i * 70 - 60, size), (i * 70 + 60, 0), tuple(rng.uniform(0.2, 1, 3)), 18)
        cv2.circle(rgb, (128, 110), 50, (0.9, 0.85, 0.3), -1)
        cv2.circle(rgb, (128, 110), 32, (0.6, 0.1, 0.1), -1)
    cv2.rectangle(rgb, (0, 236), (size, size), (0.15,) * 3, -1)
    return _pack(rgb, alpha)


def _bus_side(rng, size=256):
    rgb = _speckled(rng, size, 0.9, 0.03, 1.5)
    alpha = np.ones((size, size), np.float32)
    for i, x in enumerate(range(6, size - 30, 42)):
        cv2.rectangle(rgb, (x, 40), (x + 34, 130), (0.1 + 0.05 * (i % 3), 0.16, 0.2), -1)
        cv2.rectangle(alpha, (x, 40), (x + 34, 130), 0.0, -1)
    cv2.rectangle(rgb, (0, 150), (size, 166), (0.3,) * 3, -1)
    cv2.rectangle(rgb, (0, 226), (size, size), (0.12,) * 3, -1)
    return _pack(rgb, alpha)


def _sign(kind, size=64):
    rgb = np.full((size, size, 3), 0.93, np.float32)
    if kind == 0:
        cv2.circle(rgb, (32, 32), 26, (0.8, 0.08, 0.1), 9)
        cv2.rectangle(rgb, (20, 24), (28, 42), (0.05,) * 3, -1)
        cv2.rectangle(rgb, (34, 24), (44, 42), (0.05,) * 3, 3)
    else:
        rgb[:] = (0.08, 0.25, 0.7)
        cv2.rectangle(rgb, (8, 8), (56, 56), (0.95,) * 3, 3)
        cv2.arrowedLine(rgb, (32, 50), (32, 16), (0.95,) * 3, 6, tipLength=0.5)
    return _pack(rgb, 0.0)


def _poster(rng, size=256):
    rgb = np.ones((size, size, 3), np.float32) * rng.uniform(0.3, 0.9, 3).astype(np.float32)
    for _ in range(14):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        w, h = (int(v) for v in rng.integers(16, 110, 2))
        cv2.rectangle(rgb, (x, y), (x + w, y + h), tuple(rng.uniform(0.05, 1, 3)), -1)
    cv2.rectangle(rgb, (0, 0), (size - 1, size - 1), (0.2,) * 3, 10)
    return _pack(rgb, 0.0)


def _sky(rng, size=256):
    clouds = noise(rng, size, 1.7, (1.0, 0.6)) * 0.16 + 0.5
    return _pack(_grey(clouds), 1.0)


def draw_all(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """RGBA uint8 images of every texture but the ground."""
    detail = 0.5 + 0.10 * noise(rng, 512, 0.9) + 0.05 * noise(rng, 512, 0.3)
    roof = 0.72 + 0.1 * noise(rng, 256, 1.0)
    roof[np.arange(256) % 32 < 5] -= 0.25
    bark = 0.6 + 0.16 * noise(rng, 128, 1.1, (0.35, 1.6))
    metal = _speckled(rng, 128, 0.78, 0.06, 1.3)
    cv2.rectangle(metal, (0, 90), (128, 110), (0.95,) * 3, -1)
    cloth = _speckled(rng, 128, 0.75, 0.12, 1.4)
    cv2.rectangle(cloth, (0, 40), (128, 62), (0.35,) * 3, -1)
    cv2.rectangle(cloth, (56, 0), (66, 128), (0.95,) * 3, -1)
    top = _speckled(rng, 128, 0.92, 0.04, 1.6)
    cv2.rectangle(top, (0, 0), (127, 127), (0.55,) * 3, 3)
    return {
        "detail": _pack(_grey(detail), 1.0),
        "sky": _sky(rng),
        **{f"facade_{i}": facade(rng) for i in range(FACADES)},
        "concrete": _pack(_speckled(rng, 256, 0.72, 0.1, 1.2), 1.0),
        "roof": _pack(_grey(roof), 1.0),
        "foliage_0": foliage(rng),
        "foliage_1": foliage(rng),
        "bark": _pack(_grey(bark), 1.0),
        "metal": _pack(metal, 1.0),
        "cloth": _pack(cloth, 1.0),
        "skin": _pack(_speckled(rng, 64, 0.85, 0.08, 1.3), 1.0),
        "tyre": _wheel(rng),
        "spokes": _wheel(rng, 64, 12, 0.84),
        "rubber": _pack(_speckled(rng, 64, 0.12, 0.03, 1.0), 0.0),
        "car_side": _car_side(rng),
        "car_front": _car_end(rng, False),
        "car_rear": _car_end(rng, True),
        "car_top": _pack(top, 1.0),
        "glass": _glass(rng),
        "cargo_0": _cargo(rng, 0),
        "cargo_1": _cargo(rng, 1),
        "bus_side": _bus_side(rng),
        "sign_0": _sign(0),
        "sign_1": _sign(1),
        "poster": _poster(rng),
    }
