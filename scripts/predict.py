"""Predicts depth of an image, several, a folder, a video or a KITTI drive with a trained model.

    python scripts/predict.py --checkpoint=runs/kitti clip.mp4 --out=DIR --fov=60 --save=npy,colour,mp4 --viewer

Without --checkpoint, runs the bundled model.
The input is an image; two or more consecutive images; a folder, or a pattern in quotes; a video; a KITTI raw drive or odometry
sequence; or another folder in the layout of a data set (docs/data.md). For each frame, DIR receives the requested formats under
the frame's name:

    npy         DIR/depth/*.npy             float32 (H, W), in the networks' unit, or in metres with one of the scales below
    png16       DIR/depth_png16/*.png       256 x depth, 16 bits, as KITTI's ground truth
    colour      DIR/colour/*.png            near is bright
    ply         DIR/clouds/*.ply            a coloured point per pixel: x right, y down, z forward
    mp4         DIR/side_by_side.mp4        the frames beside their depth
    trajectory  DIR/trajectory_kitti.txt and trajectory_tum.txt: the camera trajectory

--viewer writes DIR/viewer.html, an interactive page with the points of each frame; it works offline.
After an interruption, the same command continues; with further formats, it adds them.
"""

import argparse
import math
import os
import re
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.inference import api, inputs, metric_scale
from dd_jax.inference.predict import predict
from dd_jax.runtime import command_line

RECORDED = ("inputs", "frames", "camera", "masks", "scale", "camera_height", "camera_pitch", "speed", "truth")
"""Flags that the files depend on, in addition to what the job itself records."""


def frames(text: str) -> slice:
    """``START:END:STEP``, each optional."""
    if not re.fullmatch(r"-?\d*:-?\d*(:[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be START:END or START:END:STEP")
    return slice(*(int(word) if word else None for word in text.split(":")))


def factor(text: str) -> float | None:
    """A number; ``none``, as for networks whose unit is the metre, is that of the default."""
    try:
        return None if text == "none" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give a factor, or none") from error


def speed(text: str) -> float | str:
    """A number, or ``oxts``."""
    try:
        return text if text == "oxts" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give metres per second, or oxts") from error


def scale_of(flags: argparse.Namespace, source: inputs.Source) -> metric_scale.Scale:
    """The scale given by the flags."""
    if flags.camera_height is not None:
        return metric_scale.CameraHeight(flags.camera_height, flags.camera_pitch or 0.0)
    if flags.camera_pitch is not None:
        raise ConfigError("--camera-pitch is used with --camera-height only: give both, or neither")
    if flags.speed is not None:
        speeds = inputs.speeds_of(source) if flags.speed == "oxts" else flags.speed
        return metric_scale.Speed(speeds, source.rate, source.seconds)
    if flags.truth is not None:
        return metric_scale.Median(inputs.truths_of(source, flags.truth))
    return 1.0 if flags.scale is None else flags.scale


def main(argv: list[str] | None = None) -> None:
    parser = command_line.Parser(__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument(
        "--checkpoint",
        default="rendered",
        help="folder of a run, one that model.save wrote, or hf://owner/name; default: rendered, which comes with the "
        "library and was trained on rendered streets",
    )
    parser.add_argument("--which", default="best", help="checkpoint of a run: best | latest | a step")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--save", default="npy,colour", help="formats, separated by commas (default: npy,colour)")
    parser.add_argument("--viewer", action="store_true", help="also write viewer.html")
    parser.add_argument("--frames", type=frames, default=inputs.EVERY, metavar="START:END:STEP", help="only these frames")
    parser.add_argument("--rate", type=float, help="frames per second (default: times of the video or data set, or 10)")
    parser.add_argument("--camera", type=int, choices=(2, 3), help="of a KITTI drive: 2 = left (default if there), 3 = right")
    parser.add_argument("--masks", type=Path, help="folder of NAME.png or NAME.npy, nonzero = dynamic object")
    parser.add_argument("--network", default="auto", choices=("auto", "teacher"), help="teacher: the single-frame network only")
    parser.add_argument("--cloud-depth", type=float, default=math.inf, help="largest depth in point clouds")
    parser.add_argument("--batch-size", type=int, default=1, help="frames predicted at once; 8 or more suit a GPU")
    camera = parser.add_mutually_exclusive_group()
    four = command_line.numbers("four numbers are needed, fx,fy,cx,cy in pixels", 4)
    camera.add_argument("--intrinsics", type=four, metavar="fx,fy,cx,cy", help="in pixels of the frames")
    camera.add_argument("--fov", type=float, help="horizontal field of view in degrees")
    group = parser.add_argument_group("metric scale, by one of")
    metres = group.add_mutually_exclusive_group()
    metres.add_argument("--scale", "--scaling", type=factor, help="factor on the depth, or none: the unit of the networks")
    metres.add_argument("--camera-height", type=float, help="height of the camera above the road in metres; KITTI: 1.65")
    metres.add_argument("--speed", type=speed, help="of the car in metres per second, or oxts: as measured in a KITTI drive")
    metres.add_argument("--truth", type=Path, help="folder with ground-truth depth, NAME.npy or 16-bit NAME.png: median scaling")
    group.add_argument("--camera-pitch", type=float, help="with --camera-height: downward pitch in degrees")
    flags = parser.parse_args(argv)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV re-reads the written MP4; video_writer reports errors
    with command_line.job():
        run(flags)


def run(flags: argparse.Namespace) -> None:
    """The job of the flags."""
    source = inputs.open_source(
        flags.inputs, chosen=flags.frames, camera=flags.camera, intrinsics=flags.intrinsics, fov=flags.fov, rate=flags.rate
    )
    print(f"{source.title}: {len(source.names)} frames of {source.size[1]} x {source.size[0]}; camera: {source.camera}")
    for sentence in source.findings:
        print(f"warning: {sentence}")
    model = api.load(flags.checkpoint, flags.which)
    summary = predict(
        model,
        source,
        flags.out,
        formats=[*filter(None, flags.save.split(",")), *["viewer"] * flags.viewer],
        scale=scale_of(flags, source),
        network=flags.network,
        mask_of=inputs.masks_of(source, flags.masks),
        farthest=flags.cloud_depth,
        batch_size=flags.batch_size,
        settings={name: str(value) for name, value in vars(flags).items() if name in RECORDED and value is not None},
    )
    for sentence in summary.faults:
        print(f"warning: {sentence}: do not trust their depth; replace them, or leave them out with --frames")
    step = model.config.data.frame_step
    if 1 < summary.frames <= step and flags.network == "auto" and model.config.model.student:
        print(f"this model matches frames that are {step} apart, which these are not: the single-frame network predicted all")
    speed = f", {summary.frames_per_second:.1f} per second" if summary.frames_per_second else ""
    print(f"{summary.frames} frames, {summary.predicted} predicted now{speed}")
    print(*(f"  {flags.out / place}" for place in summary.places), sep="\n")


if __name__ == "__main__":
    main()
