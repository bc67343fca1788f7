"""Interlaced frames, whose odd and even lines were taken at different times, are made into whole pictures by FFmpeg."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import av

ANALYSED = 5
"""Frames by which FFmpeg's idet judges whether frames marked as interlaced are; those that are not stay as they are."""


class Shown(NamedTuple):
    """What a video shows at one place."""

    frame: av.VideoFrame | None  # None: cannot be decoded
    seconds: float  # since the first frame, by the time stamps


def deinterlaced(video: Iterator[Shown]) -> Iterator[Shown]:
    """The same frames with their times; from the first one that is marked as interlaced on, they pass FFmpeg's bwdif."""
    graph, properties, waiting = None, None, deque()
    for shown in video:
        frame = shown.frame
        if frame is not None and (graph is not None or frame.interlaced_frame):
            if properties != (properties := (frame.width, frame.height, frame.format.name)):
                yield from _finished(graph, waiting)
                graph = _graph(frame)
            graph.vpush(frame)
        elif graph is None:
            yield shown
            continue
        waiting.append(shown)
        yield from _passed(graph, waiting)
    yield from _finished(graph, waiting)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    judge, filled = (
        graph.add("idet", f"analyze_interlaced_flag={ANALYSED}"),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
    )
    graph.link_nodes(source, judge, filled, graph.add("buffersink")).configure()
    return graph


def _passed(graph: av.filter.Graph, waiting: deque[Shown]) -> Iterator[Shown]:
    """What has left the graph, which keeps the frames that it needs to fill the next one."""
    while waiting:
        try:
            frame = None if waiting[0].frame is None else graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield waiting.popleft()._replace(frame=frame)


def _finished(graph: av.filter.Graph | None, waiting: deque[Shown]) -> Iterator[Shown]:
    """The last frames of the graph."""
    if graph is not None:
        graph.vpush(None)
        yield from _passed(graph, waiting)
