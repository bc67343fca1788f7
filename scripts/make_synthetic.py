"""Renders synthetic drives in the KITTI raw layout, with masks, depth and prior depth.

python scripts/make_synthetic.py --out DIR --preset demo
"""

from dd_jax.data.synthetic import PRESETS, make
from dd_jax.runtime import command_line


def main(arguments: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("--out", required=True, help="folder of the data set; an interrupted one is continued")
    parser.add_argument("--preset", default="small", choices=tuple(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, help="image size; default: the preset's")
    parser.add_argument("--width", type=int)
    parser.add_argument("--workers", type=int, default=2, help="processes; the files do not depend on it")
    flags = parser.parse_args(arguments)
    with command_line.job():
        info = make(flags.out, flags.preset, flags.seed, flags.workers, flags.height, flags.width)
    for name, s in info["drives"].items():
        print(f"drive {name} {s['split']:5} {s['maneuver']:8} moving {s['moving_share']:6.1%} dynamic {s['dynamic_share']:6.1%} "
              f"{s['metres_per_frame']:.2f} m/frame")  # fmt: skip


if __name__ == "__main__":
    main()
