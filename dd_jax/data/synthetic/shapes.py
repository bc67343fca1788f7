"""Shapes of objects in their own axes: origin on the ground, front towards +Z, metres."""

import numpy as np

from dd_jax.data.synthetic.primitives import DISC, Builder
from dd_jax.data.synthetic.textures import ID

FOOTPRINT = {
    "car": (4.8, 1.85), "van": (5.6, 2.05), "truck": (8.5, 2.5), "bus": (11.0, 2.5), "cyclist": (1.8, 0.6),
    "pedestrian": (0.6, 0.6),
}  # fmt: skip
"""Potentially dynamic classes with the largest length and width on the ground; metres."""

_PAINT = np.array(
    [[0.9, 0.9, 0.9], [0.75, 0.77, 0.8], [0.22, 0.23, 0.26], [0.6, 0.08, 0.08], [0.1, 0.2, 0.5], [0.15, 0.35, 0.2],
     [0.85, 0.6, 0.1], [0.45, 0.3, 0.2], [0.3, 0.5, 0.65], [0.9, 0.85, 0.7]]
)  # fmt: skip


def paint(rng: np.random.Generator) -> np.ndarray:
    return (_PAINT[rng.integers(len(_PAINT))] * rng.uniform(0.8, 1.1, 3)).clip(0, 1)


def add(build: Builder, kind: str) -> None:
    """Adds one potentially dynamic object of ``kind`` (a key of ``FOOTPRINT``)."""
    {"car": car, "van": van, "truck": truck, "bus": bus, "cyclist": cyclist, "pedestrian": pedestrian}[kind](build)


def _wheels(build: Builder, width: float, stations: tuple[float, ...], radius: float) -> None:
    for z in stations:
        for side in (-1, 1):
            x = side * (width / 2 + 0.015)
            build.patch((x, -radius, z), (0, 0, radius), (0, radius, 0), (side, 0, 0), ID["tyre"], shape=DISC, fit=True)
        for end in (-1, 1):
            build.patch((0, -radius * 0.6, z + end * radius * 0.9), (width / 2, 0, 0), (0, radius * 0.6, 0), (0, 0, end),
                        ID["rubber"])  # fmt: skip


def car(build: Builder) -> None:
    rng = build.rng
    length, width, height = rng.uniform(3.7, 4.8), rng.uniform(1.68, 1.85), rng.uniform(1.4, 1.62)
    colour, floor, belt = paint(rng), 0.22, rng.uniform(0.82, 0.95)
    middle = (floor + belt) / 2
    build.box((0, -middle, 0), (width / 2, (belt - floor) / 2, length / 2),
              (ID["car_front"], ID["car_rear"], ID["car_side"], ID["car_top"]), colour, fit=True)  # fmt: skip
    bottom, top = length * rng.uniform(0.6, 0.78), length * rng.uniform(0.42, 0.5)
    shift = -length * rng.uniform(0.02, 0.1)
    _cabin(build, width - 0.08, belt, height, bottom, top, shift, colour)
    _wheels(build, width, (length * 0.32, -length * 0.31), 0.31)


def _cabin(build, width, belt, height, bottom, top, shift, colour):
    """Trapezium in side view: sloped front and rear windows, glass sides, roof."""
    rise, slope, y = height - belt, (bottom - top) / 2, -(belt + height) / 2
    for side in (-1, 1):
        build.patch((side * width / 2, y, shift), (0, 0, bottom / 2), (0, rise / 2, 0), (side, 0, 0), ID["glass"], colour,
                    shape=1 - top / bottom, fit=True)  # fmt: skip
    for end in (-1, 1):
        build.patch((0, y, shift + end * (bottom + top) / 4), (width / 2, 0, 0), (0, rise / 2, end * slope / 2), (0, -0.3, end),
                    ID["glass"], colour, fit=True)  # fmt: skip
    build.patch((0, -height, shift), (width / 2, 0, 0), (0, 0, top / 2), (0, -1, 0), ID["car_top"], colour, fit=True)


def van(build: Builder) -> None:
    rng = build.rng
    length, width, height = rng.uniform(4.8, 5.6), rng.uniform(1.9, 2.05), rng.uniform(1.9, 2.4)
    colour, side = paint(rng), (ID["cargo_0"], ID["cargo_1"], ID["car_side"])[rng.integers(3)]
    nose = 0.75
    build.box((0, -(0.25 + height) / 2, -nose / 2), (width / 2, (height - 0.25) / 2, (length - nose) / 2),
              (ID["glass"], ID["car_rear"], side, ID["car_top"]), colour, fit=True)  # fmt: skip
    build.box((0, -0.65, length / 2 - nose / 2), (width / 2, 0.4, nose / 2),
              (ID["car_front"], ID["car_front"], ID["car_top"], ID["car_top"]), colour, fit=True)  # fmt: skip
    _wheels(build, width, (length * 0.33, -length * 0.3), 0.34)


def truck(build: Builder) -> None:
    rng = build.rng
    length, width, height = rng.uniform(6.5, 8.5), 2.45, rng.uniform(2.9, 3.5)
    colour, cargo, cab = paint(rng), (ID["cargo_0"], ID["cargo_1"], ID["poster"])[rng.integers(3)], 1.9
    build.box((0, -(0.75 + height) / 2, -cab / 2 - 0.1), (width / 2, (height - 0.75) / 2, (length - cab) / 2 - 0.1),
              (cargo, cargo, cargo, ID["metal"]), paint(rng), fit=True)  # fmt: skip
    build.box((0, -1.45, length / 2 - cab / 2), (width / 2 - 0.05, 1.1, cab / 2),
              (ID["car_front"], ID["metal"], ID["car_side"], ID["car_top"]), colour, fit=True)  # fmt: skip
    build.patch((0, -2.0, length / 2 + 0.012), (width / 2 - 0.15, 0, 0), (0, 0.42, 0), (0, 0, 1), ID["glass"], colour, fit=True)
    build.box((0, -0.62, -0.2), (width / 2 - 0.3, 0.14, length / 2 - 0.4), (ID["rubber"],) * 4, top=False)
    _wheels(build, width - 0.1, (length * 0.36, -length * 0.2, -length * 0.36), 0.45)


def bus(build: Builder) -> None:
    rng = build.rng
    length, width, height = rng.uniform(9.0, 11.0), 2.5, 3.0
    build.box((0, -(0.3 + height) / 2, 0), (width / 2, (height - 0.3) / 2, length / 2),
              (ID["bus_side"], ID["bus_side"], ID["bus_side"], ID["car_top"]), paint(rng), fit=True)  # fmt: skip
    _wheels(build, width, (length * 0.33, -length * 0.3), 0.48)


def _rider(build: Builder, hip: float, lean: float, at: float = 0.0) -> None:
    """Torso, arms and head above ``hip``; ``lean`` is how far the shoulders are in front of the hips."""
    rng = build.rng
    coat, skin = rng.uniform(0.15, 1.0, 3), np.array([0.85, 0.65, 0.5]) * rng.uniform(0.5, 1.1)
    neck = hip + 0.55
    build.ellipsoid((0, -(hip + neck) / 2, at + lean / 2), (0.21, 0.36, 0.15 + lean / 3), ID["cloth"], coat)
    for side in (-1, 1):
        build.tube((side * 0.25, -neck + 0.02, at + lean), (side * 0.27, -neck + 0.5, at + lean + 0.12), 0.055, ID["cloth"], coat)
    build.ellipsoid((0, -neck - 0.16, at + lean), (0.1, 0.14, 0.12), ID["skin"], skin)
    build.ellipsoid((0, -neck - 0.22, at + lean - 0.02), (0.11, 0.1, 0.13), ID["bark"], rng.uniform(0.1, 0.9, 3))


def pedestrian(build: Builder) -> None:
    rng = build.rng
    hip, stride, trousers = rng.uniform(0.78, 0.95), rng.uniform(0.08, 0.22), rng.uniform(0.1, 0.7, 3)
    for side in (-1, 1):
        build.tube((side * 0.1, 0, side * stride), (side * 0.09, -hip - 0.05, 0), 0.085, ID["cloth"], trousers)
    _rider(build, hip, 0.03)
    if rng.random() < 0.4:
        build.ellipsoid((0, -hip - 0.33, -0.2), (0.17, 0.24, 0.12), ID["metal"], rng.uniform(0.1, 0.9, 3))  # rucksack


def cyclist(build: Builder) -> None:
    rng = build.rng
    colour = rng.uniform(0.2, 1.0, 3)
    for z in (-0.52, 0.54):
        for side in (-1, 1):
            build.patch((side * 0.02, -0.34, z), (0, 0, 0.34), (0, 0.34, 0), (side, 0, 0), ID["spokes"], shape=DISC, fit=True)
        build.patch((0, -0.34, z + 0.25), (0.03, 0, 0), (0, 0.32, 0), (0, 0, 1), ID["rubber"])
        build.patch((0, -0.34, z - 0.25), (0.03, 0, 0), (0, 0.32, 0), (0, 0, -1), ID["rubber"])
    build.tube((0, -0.34, -0.5), (0, -0.85, -0.2), 0.035, ID["metal"], colour)
    build.tube((0, -0.34, -0.05), (0, -0.95, 0.42), 0.035, ID["metal"], colour)
    build.tube((0, -0.34, 0.54), (0, -1.02, 0.4), 0.035, ID["metal"], colour)
    build.tube((-0.27, -1.04, 0.38), (0.27, -1.04, 0.38), 0.025, ID["rubber"])
    trousers = rng.uniform(0.1, 0.6, 3)
    for side in (-1, 1):
        build.tube((side * 0.11, -0.25 - 0.15 * (side > 0), 0.02), (side * 0.1, -0.98, -0.15), 0.085, ID["cloth"], trousers)
    _rider(build, 0.95, 0.32, at=-0.18)


def tree(build: Builder, x: float, z: float) -> None:
    rng = build.rng
    trunk, radius = rng.uniform(1.9, 3.2), rng.uniform(0.12, 0.24)
    leaf, green = ID[f"foliage_{rng.integers(2)}"], np.array([0.6, 0.85, 0.35]) * rng.uniform(0.6, 1.2, 3)
    build.tube((x, 0, z), (x, -trunk - 1, z), radius, ID["bark"], np.array([0.6, 0.5, 0.42]) * rng.uniform(0.7, 1.2))
    for _ in range(rng.integers(2, 5)):
        size = rng.uniform(1.0, 1.9)
        dx, dz = rng.normal(0, 0.6, 2)
        centre = (x + dx, -trunk - size * rng.uniform(0.6, 1.6), z + dz)
        build.ellipsoid(centre, (size, size * rng.uniform(0.75, 1.1), size), leaf, green)


def lamp(build: Builder, x: float, z: float, towards: float) -> None:
    height = build.rng.uniform(5.5, 7.5)
    build.tube((x, 0, z), (x, -height, z), 0.07, ID["metal"], (0.55, 0.58, 0.6))
    build.tube((x, -height, z), (x + 1.6 * towards, -height - 0.2, z), 0.05, ID["metal"], (0.55, 0.58, 0.6))
    build.box((x + 1.6 * towards, -height - 0.15, z), (0.35, 0.07, 0.15), (ID["metal"],) * 4)


def sign(build: Builder, x: float, z: float) -> None:
    rng = build.rng
    top, kind, size = rng.uniform(2.1, 2.6), ID[f"sign_{rng.integers(2)}"], rng.uniform(0.28, 0.4)
    build.tube((x, 0, z), (x, -top - size, z), 0.035, ID["metal"], (0.6, 0.6, 0.6))
    for end, material in ((-1, kind), (1, ID["metal"])):
        build.patch((x, -top, z + 0.05 * end), (size, 0, 0), (0, size, 0), (0, 0, end), material, fit=True,
                    shape=DISC if kind == ID["sign_0"] else 0.0)  # fmt: skip


def traffic_light(build: Builder, x: float, z: float) -> None:
    build.tube((x, 0, z), (x, -3.2, z), 0.07, ID["metal"], (0.35, 0.37, 0.38))
    build.box((x, -2.8, z), (0.17, 0.45, 0.14), (ID["rubber"],) * 4)
    build.patch((x, -3.05, z - 0.15), (0.1, 0, 0), (0, 0.1, 0), (0, 0, -1), ID["metal"], (1.0, 0.15, 0.1), shape=DISC)


def bin_(build: Builder, x: float, z: float) -> None:
    rng = build.rng
    colour, height, radius = rng.uniform(0.15, 0.8, 3), rng.uniform(0.8, 1.2), rng.uniform(0.22, 0.34)
    build.tube((x, 0, z), (x, -height, z), radius, ID["metal"], colour)
    build.patch((x, -height, z), (radius, 0, 0), (0, 0, radius), (0, -1, 0), ID["metal"], colour, shape=DISC)


def billboard(build: Builder, x: float, z: float) -> None:
    build.box((x, -1.5, z), (0.12, 1.0, 0.75), (ID["metal"], ID["metal"], ID["poster"], ID["metal"]), fit=True)
    build.box((x, -0.25, z), (0.1, 0.25, 0.6), (ID["metal"],) * 4)


def hedge(build: Builder, x0: float, z0: float, x1: float, z1: float) -> None:
    """Clipped hedge between two corners."""
    height = build.rng.uniform(0.9, 1.7)
    leaf = ID[f"foliage_{build.rng.integers(2)}"]
    build.box(((x0 + x1) / 2, -height / 2, (z0 + z1) / 2), (abs(x1 - x0) / 2, height / 2, abs(z1 - z0) / 2), (leaf,) * 4,
              np.array([0.5, 0.72, 0.32]) * build.rng.uniform(0.7, 1.2, 3))  # fmt: skip


def building(build: Builder, x0: float, z0: float, x1: float, z1: float, storeys: int, gable: bool) -> None:
    """House over the rectangle; ``gable`` adds a pitched roof with its ridge along the longer side."""
    rng = build.rng
    wall, height = ID[f"facade_{rng.integers(8)}"], 3.2 * storeys
    tint = np.array([[1, 0.95, 0.85], [0.95, 0.75, 0.6], [0.8, 0.85, 0.9], [0.9, 0.82, 0.6], [0.75, 0.55, 0.45], [0.9, 0.9, 0.9]])
    colour = (tint[rng.integers(len(tint))] * rng.uniform(0.75, 1.1, 3)).clip(0, 1.15)
    build.wall(x0, z0, x1, z0, (0, 0, -1), height, wall, colour)
    build.wall(x0, z1, x1, z1, (0, 0, 1), height, wall, colour)
    build.wall(x0, z0, x0, z1, (-1, 0, 0), height, wall, colour)
    build.wall(x1, z0, x1, z1, (1, 0, 0), height, wall, colour)
    if not gable:
        return
    cx, cz, hx, hz, rise = (x0 + x1) / 2, (z0 + z1) / 2, (x1 - x0) / 2, (z1 - z0) / 2, rng.uniform(2.0, 4.0)
    tiles = np.array([0.75, 0.4, 0.3]) * rng.uniform(0.6, 1.2, 3)
    y = -height - rise / 2
    for side in (-1, 1):
        if hx > hz:
            build.patch((cx, y, cz + side * hz / 2), (hx, 0, 0), (0, rise / 2, side * hz / 2), (0, -1, side), ID["roof"], tiles)
            build.patch((cx + side * hx, y, cz), (0, 0, hz), (0, rise / 2, 0), (side, 0, 0), ID["concrete"], colour, shape=1.0)
        else:
            build.patch((cx + side * hx / 2, y, cz), (0, 0, hz), (side * hx / 2, rise / 2, 0), (side, -1, 0), ID["roof"], tiles)
            build.patch((cx, y, cz + side * hz), (hx, 0, 0), (0, rise / 2, 0), (0, 0, side), ID["concrete"], colour, shape=1.0)
