"""Makes prior depth for the images of a data set, with a depth network: 16-bit PNGs of inverse depth.

    python scripts/make_prior_depth.py --root DIR [--model NAME_OR_FOLDER]

DIR is your own data set (DIR/frames, priors go to DIR/priors), KITTI raw (image_02, priors go to prior_02), KITTI odometry, or
Cityscapes (leftImg8bit_sequence, priors go to prior_sequence). For any other folder of images: --images DIR --out DIR.
Images that already have a prior are skipped, so an interrupted run can be continued.
Needs PyTorch: pip install -e '.[prepare]'.
"""

from dd_jax.prepare import runner
from dd_jax.prepare.priors import DEFAULT_MODEL, estimator
from dd_jax.runtime import command_line


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    runner.add_flags(parser, runner.PRIORS, DEFAULT_MODEL)
    parser.add_argument("--says", default="auto", help="what the model predicts: depth, inverse (depth), or auto (by its type)")
    args = parser.parse_args(argv)
    with command_line.job():
        jobs, note = runner.jobs_of_flags(args.root, args.images, args.out, runner.PRIORS)
        predict = estimator(args.model, args.says, args.device)
        runner.note_origin(note, {"model": args.model, "says": args.says})
        done = runner.run(jobs, predict, args.batch_size, "priors")
    print(runner.summary(done, "priors"))


if __name__ == "__main__":
    main()
