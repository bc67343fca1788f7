"""Makes Cityscapes' training triplets, frames t-2, t, t+2 side by side without the bonnet, from the original sequences.

    python scripts/prepare_cityscapes.py CITYSCAPES [--out=DIR]

CITYSCAPES contains leftImg8bit_sequence and camera, unpacked, or the original archives leftImg8bit_sequence_trainvaltest.zip and
camera_trainvaltest.zip. Writes DIR/CITY/*.jpg, their cameras and DIR/splits; DIR is CITYSCAPES/preprocessed
by default. May be interrupted: the same command continues. Train with --config.data.source=cityscapes
--config.data.root=CITYSCAPES (which also has test set and masks), or =DIR. With --frame_step=k the neighbours are t-2k and t+2k;
train such triplets with --config.data.frame_step=k.
"""

import os
from pathlib import Path

from dd_jax.prepare.cityscapes import Settings, prepare
from dd_jax.runtime import command_line


def main(argv: list[str] | None = None) -> None:
    default = Settings()
    parser = command_line.Parser(__doc__)
    parser.add_argument("root", type=Path, help="folder of Cityscapes")
    parser.add_argument("--out", type=Path, help="default: ROOT/preprocessed")
    parser.add_argument("--cities", nargs="*", default=[], help="only these")
    parser.add_argument("--height", type=int, default=default.height, help="of one frame")
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--quality", type=int, default=default.quality, help="of the JPEG, 1 to 100")
    parser.add_argument("--resize", choices=("area", "lanczos"), default=default.resize)
    parser.add_argument("--frame_step", type=int, default=default.frame_step, help="k: frames t-2k, t, t+2k; default: 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    args = parser.parse_args(argv)
    settings = Settings(args.height, args.width, args.quality, args.resize, args.frame_step)
    with command_line.job():
        result = prepare(args.root, args.out or args.root / "preprocessed", settings, args.cities, args.threads)
    print(f"{result.folder}: {result.triplets} triplets, {result.written} of them new")
    if result.unreadable:
        shown = ", ".join(result.unreadable[:20])
        print(f"{len(result.unreadable)} frames cannot be read, and their triplets are left out: {shown}")


if __name__ == "__main__":
    main()
