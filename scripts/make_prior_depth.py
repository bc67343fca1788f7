"""Makes prior depth for the pictures of a data set, with a depth network: 16-bit PNGs of inverse depth.

    python scripts/make_prior_depth.py --root DIR [--model NAME_OR_FOLDER]

DIR is your own data set (DIR/frames, priors go to DIR/priors), KITTI raw (image_02, priors go to prior_02), KITTI odometry, or
Cityscapes (leftImg8bit_sequence, priors go to prior_sequence). For any other folder of pictures: --images DIR --out DIR.
Pictures that have a prior already are left alone, so an interrupted run goes on.
Needs PyTorch: pip install -e '.[prepare]'.
"""

import argparse
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.prepare import runner
from dd_jax.prepare.make_priors import DEFAULT_MODEL, estimator


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--images", type=Path, help="instead of --root: any folder of pictures, with folders in it or without")
    parser.add_argument("--out", type=Path, help="with --images: where the priors go, under the pictures' names")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name on the Hugging Face hub, or folder; default: %(default)s")
    parser.add_argument("--says", default="auto", help="what the model says: depth, inverse, or auto (goes by its kind)")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--device", default="", help="cuda, cuda:1, cpu, ...; default: a GPU where there is one")
    args = parser.parse_args(argv)
    try:
        if args.batch_size < 1:
            raise ConfigError(f"--batch_size={args.batch_size} must be at least 1")
        jobs, note = runner.jobs_of_flags(args.root, args.images, args.out, runner.PRIORS)
        predict = estimator(args.model, args.says, args.device)
        runner.note_origin(note, {"model": args.model, "says": args.says})
        done = runner.run(jobs, predict, args.batch_size, "priors")
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    print(runner.summary(done, "priors"))


if __name__ == "__main__":
    main()
