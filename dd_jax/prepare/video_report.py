"""Report on whether the frames of a video are suitable for training, as sentences and as an image."""

import math

import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.data.picture_faults import DARK
from dd_jax.data.video_reader import VARYING
from dd_jax.prepare import motion, triplet
from dd_jax.prepare.video import BLANK, DELETED, KEPT, REMEDY, REPEATED, RESIZED, UNREADABLE, Prepared, Row
from dd_jax.report.pictures import grid

KITTI_INTERVAL = 0.1
"""Seconds between consecutive frames of KITTI."""

GOOD_MOTION = (0.005, 0.03)
"""Suitable median motion between neighbours, as a share of the width; rendered drives with KITTI's speed, interval and field of
view have 0.01 to 0.02 while the car drives."""

LEFT_OUT = {
    UNREADABLE: "cannot be decoded",
    RESIZED: "have another size than the first",
    BLANK: "have a single colour",
    REPEATED: "equal the one before (a video converted from a lower rate, or a picture that stood still)",
}
"""What is wrong with frames of an outcome."""

PARALLAX = 0.1
"""A frame has parallax if at least this share of its corners fits no single homography."""


def sentences(prepared: Prepared) -> list[str]:
    """Properties of the frames that matter for training, with remedies."""
    kept = [row for row in prepared.rows if row.outcome == KEPT]
    lines = [f"frames: {prepared.kept} kept of {len(prepared.rows)} checked, {prepared.static} left out (static camera)"]
    if prepared.kept < 3:
        lines[0] += "; training needs three in a row"
    lines += _damage(prepared)
    if prepared.camera:
        lines.append(f"camera: {prepared.camera}; depth has the relative error of the focal length: calibrate if possible")
    lines.append(f"frame rate: {_interval(prepared)} (KITTI: {KITTI_INTERVAL:g} s)")
    lines.append(_motion(prepared, kept))
    parallax = [row.parallax for row in kept if math.isfinite(row.parallax)]
    if parallax:
        share = float(np.mean(np.array(parallax) >= PARALLAX))
        lines.append(f"parallax: {share:.0%} of the frames have parallax")
        if share < 0.5:
            lines[-1] += "; a camera that only rotates, or sees a single plane, gives no depth signal"
    soft = motion.blurred([row.sharpness for row in kept]) if kept else []
    lines.append(f"sharpness: {len(soft)} of {len(kept)} frames are blurred compared with their neighbours")
    if soft:
        lines[-1] += f", the first is {kept[soft[0]].frame:06d}"
    lines.append(f"size: {prepared.width} x {prepared.height} in all frames")
    return lines


def _interval(prepared: Prepared) -> str:
    """Time between neighbours by their time stamps, which notes of earlier versions lack."""
    taken = f"every {_ordinal(prepared.every)}frame taken, so neighbours are"
    intervals = np.diff([row.seconds for row in prepared.rows])
    if not intervals.size or not np.isfinite(intervals).all():
        return f"{prepared.rate:g} per second, {taken} {prepared.every / prepared.rate:.3g} s apart"
    typical, longest = float(np.median(intervals)), int(intervals.argmax())
    if intervals.max() <= VARYING * typical and intervals.min() * VARYING >= typical:
        return f"{prepared.every / typical:.4g} per second, {taken} {typical:.3g} s apart"
    frame = prepared.rows[longest + 1].frame
    return (
        f"varies, {taken} {typical:.3g} s apart, but {intervals[longest]:.3g} s before {frame:06d}; --start and --end cut a video"
    )


def _damage(prepared: Prepared) -> list[str]:
    lines = []
    for outcome, what in LEFT_OUT.items():
        if places := [row.frame for row in prepared.rows if row.outcome == outcome]:
            lines.append(f"{outcome}: {len(places)} frames {what} and are left out, the first is {places[0]:06d}")
    if dark := [row.frame for row in prepared.rows if row.outcome == KEPT and row.brightest < DARK]:
        lines.append(f"brightness: {len(dark)} frames are dark, without a pixel of {DARK} of 255, the first is {dark[0]:06d}")
    if prepared.reported:
        lines.append(f"decoder: {prepared.reported}")
    if count := prepared.count(DELETED):
        lines.append(f"deleted: {count} frames have been deleted since they were extracted, which leaves larger steps; {REMEDY}")
    if prepared.missing:
        lines.append(f"damage: the video ends {prepared.missing} frames before its announced end")
    return lines


def _motion(prepared: Prepared, kept: list[Row]) -> str:
    known = [row.motion for row in kept if math.isfinite(row.motion)]
    if not known:
        return "motion: unknown, too few corners"
    median = float(np.median(known))
    text = f"motion: from frame to frame the median corner moves by {median:.1%} of the width"
    low, high = GOOD_MOTION
    if low <= median <= high:
        return f"{text}, which is fine"
    target = math.sqrt(low * high)
    better = max(1, round(prepared.every * target / median))
    if better == prepared.every:
        return f"{text}, which is {'little' if median < low else 'much'}, but no other --every comes closer"
    return f"{text}, which is {'little' if median < low else 'much'}: try --every={better}"


def _ordinal(number: int) -> str:
    """ "2nd ", "3rd ", ...; empty for 1."""
    if number == 1:
        return ""
    ending = "th" if 10 < number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending} "


def check_image(prepared: Prepared) -> UInt8[np.ndarray, "rows width 3"] | None:
    """A frame of median motion and its neighbours, RGB (see :mod:`dd_jax.prepare.triplet`); None with too few frames.

    Raises:
      ConfigError: a frame cannot be decoded.
    """
    kept = [row for row in prepared.rows if row.outcome == KEPT]
    if len(kept) < 3:
        return None
    inner = np.array([row.motion for row in kept[1:-1]])
    place = 1 + int(np.argsort(np.where(np.isfinite(inner), inner, np.inf), kind="stable")[len(inner) // 2])
    names = [f"{kept[place + step].frame:06d}" for step in (-1, 0, 1)]
    try:
        images = [frames.decode_image(next(prepared.folder.glob(f"{name}.*"))) for name in names]
    except frames.UnreadableFrame as error:
        raise ConfigError(f"the frame {error} cannot be decoded any more: {REMEDY}") from error
    return grid(triplet.tiles(*images, names[1]), columns=2)
