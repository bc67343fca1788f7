"""Converts a driving video to a folder of frames for training, and reports whether it is suitable.

    python scripts/prepare_video.py clip.mp4 --out DIR --fov=60

writes DIR/frames/clip/*.jpg and the camera, DIR/frames/clip/intrinsics.json. Frames in which the car stands are left out.
DIR/check_clip.jpg shows three neighbouring frames and their alignment. After an interruption, the same command continues.
Train with --config.data.source=folder --config.data.root=DIR.

With a folder of pictures instead of a video, --intrinsics and --distortion undistort the pictures in the same way.
"""

import math
from pathlib import Path

from dd_jax.prepare.triplet import jpeg
from dd_jax.prepare.undistort import undistort
from dd_jax.prepare.video import MIN_MOTION, Prepared, prepare
from dd_jax.prepare.video_report import check_image, sentences
from dd_jax.runtime import command_line, files


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("video", type=Path, nargs="+", help="videos, or folders of pictures to undistort")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set; each video becomes a clip in it")
    camera = parser.add_mutually_exclusive_group(required=True)
    camera.add_argument("--fov", type=float, help="horizontal field of view in degrees (dash cameras: often 60 to 120)")
    four = command_line.numbers("four numbers are needed, fx,fy,cx,cy in pixels", 4)
    camera.add_argument("--intrinsics", type=four, metavar="fx,fy,cx,cy", help="in pixels of the video")
    camera.add_argument("--guess", action="store_true", help="use the focal length in the file's metadata, else 60 degrees")
    parser.add_argument(
        "--distortion",
        type=command_line.numbers("give four or five numbers, k1,k2,p1,p2 or k1,k2,p1,p2,k3", 4, 5),
        default=(),
        metavar="k1,k2,p1,p2[,k3]",
        help="lens distortion in OpenCV's convention, calibrated together with --intrinsics; the frames are undistorted",
    )
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame; about 10 frames per second work best")
    parser.add_argument("--start", type=float, default=0.0, help="seconds")
    parser.add_argument("--end", type=float, default=math.inf, help="seconds")
    parser.add_argument(
        "--min-motion",
        type=float,
        default=MIN_MOTION,
        help="leave out frames whose median corner moved less than this share of the width (0 = keep all)",
    )
    parser.add_argument("--png", action="store_true", help="lossless frames, several times larger")
    args = parser.parse_args(argv)
    for video in args.video:
        with command_line.job():
            if video.is_dir():
                done = undistort(video, args.out, args.intrinsics, args.distortion, "png" if args.png else "jpg")
                camera = ",".join(f"{value:.6g}" for value in done.camera)
                print(f"{done.folder}: {done.count} pictures of {done.size[1]} x {done.size[0]}, now with the camera {camera}")
                continue
            result = prepare(
                video, args.out, fov=args.fov, intrinsics=args.intrinsics, guess=args.guess, distortion=args.distortion,
                every=args.every, start=args.start, end=args.end, min_motion=args.min_motion,
                suffix="png" if args.png else "jpg",
            )  # fmt: skip
            show(video, result, args.out)


def show(video: Path, result: Prepared, out: Path) -> None:
    """Prints the report on a video and writes the image to check."""
    print(f"{result.folder}:", *sentences(result), sep="\n  ")
    image = check_image(result)
    if image is not None:
        path = out / f"check_{video.stem}.jpg"
        files.replace(path, jpeg(image))
        print(f"  look at {path}")


if __name__ == "__main__":
    main()
