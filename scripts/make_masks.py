"""Makes masks of potentially dynamic objects (vehicles, people) for the images of a data set, with a segmentation network.

    python scripts/make_masks.py --root DIR [--model NAME_OR_FOLDER]

DIR is your own data set (DIR/frames, masks go to DIR/masks), KITTI raw (image_02, masks go to mask_02), KITTI odometry, or
Cityscapes (leftImg8bit_sequence, masks go to mask_sequence). For any other folder of images: --images DIR --out DIR.
Images that already have a mask are skipped, so an interrupted run can be continued.
Needs PyTorch: pip install -e '.[prepare]'.
"""

from dd_jax.data.masks import CLASSES
from dd_jax.prepare import runner
from dd_jax.prepare.masks import DEFAULT_MODEL, segmenter
from dd_jax.runtime import command_line


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    runner.add_flags(parser, runner.MASKS, DEFAULT_MODEL)
    parser.add_argument("--classes", default=",".join(CLASSES), help="the model's names of potentially dynamic classes")
    args = parser.parse_args(argv)
    with command_line.job():
        jobs, note = runner.jobs_of_flags(args.root, args.images, args.out, runner.MASKS)
        predict = segmenter(args.model, args.classes.split(","), args.device)
        runner.note_origin(note, {"model": args.model, "classes": args.classes})
        done = runner.run(jobs, predict, args.batch_size, "masks")
    print(runner.summary(done, "masks"))


if __name__ == "__main__":
    main()
