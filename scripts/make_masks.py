"""Makes masks of what may move (vehicles, people) for the pictures of a data set, with a segmentation network.

    python scripts/make_masks.py --root DIR [--model NAME_OR_FOLDER]

DIR is your own data set (DIR/frames, masks go to DIR/masks), KITTI raw (image_02, masks go to mask_02), KITTI odometry, or
Cityscapes (leftImg8bit_sequence, masks go to mask_sequence). For any other folder of pictures: --images DIR --out DIR.
Pictures that have a mask already are left alone, so an interrupted run goes on.
Needs PyTorch: pip install -e '.[prepare]'.
"""

import argparse
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.data.masks import CLASSES
from dd_jax.prepare import runner
from dd_jax.prepare.make_masks import DEFAULT_MODEL, segmenter


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--images", type=Path, help="instead of --root: any folder of pictures, with folders in it or without")
    parser.add_argument("--out", type=Path, help="with --images: where the masks go, under the pictures' names")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name on the Hugging Face hub, or folder; default: %(default)s")
    parser.add_argument("--classes", default=",".join(CLASSES), help="what may move, by the names that the model knows")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--device", default="", help="cuda, cuda:1, cpu, ...; default: a GPU where there is one")
    args = parser.parse_args(argv)
    try:
        if args.batch_size < 1:
            raise ConfigError(f"--batch_size={args.batch_size} must be at least 1")
        jobs, note = runner.jobs_of_flags(args.root, args.images, args.out, runner.MASKS)
        predict = segmenter(args.model, args.classes.split(","), args.device)
        runner.note_origin(note, {"model": args.model, "classes": args.classes})
        done = runner.run(jobs, predict, args.batch_size, "masks")
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    print(runner.summary(done, "masks"))


if __name__ == "__main__":
    main()
