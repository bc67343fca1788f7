"""Videos of a view that slides over a wide picture, as cameras and programs write them."""

from fractions import Fraction

import av
import cv2
import numpy as np

HEIGHT, WIDTH = 48, 80
RATE = 10


def views(count, step=3):
    """(count, HEIGHT, WIDTH, 3) grey as RGB; smooth, so that compression changes them little."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 24), dtype=np.uint8)
    wide = cv2.resize(noise, (WIDTH + step * count, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None].repeat(3, axis=-1)
    return np.stack([wide[:, step * place : step * place + WIDTH] for place in range(count)])


def interlaced(pictures):
    """The lower field from one picture, the upper one from the next: half as many frames."""
    woven = pictures[1::2].copy()
    woven[:, 1::2] = pictures[::2, 1::2]
    return woven


def write(path, pictures, codec="libx264", seconds=None, pix_fmt="yuv420p", **options):
    """Encodes pictures at RATE frames per second, or at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=RATE, options=options, width=pictures.shape[2], height=pictures.shape[1], pix_fmt=pix_fmt
        )
        stream.codec_context.time_base = Fraction(1, 1000)
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = round(1000 * (place / RATE if seconds is None else seconds[place]))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(path, source, change):
    """Copies the packets of a video to another file; ``change(number, packet)`` returns the packet to write, or None."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = before.streams.video[0]
        copy = after.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in before.demux(stream) if packet.size):
            packet = change(number, packet)
            if packet is not None:
                packet.stream = copy
                after.mux(packet)
    return path
