"""Overlap of reading, computing and writing; order is kept."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each yielded after the next was requested, so that a device gets new work before it is waited for.

    An error is raised after all items before it.
    """
    waiting: deque[Item] = deque()
    try:
        for item in items:
            waiting.append(item)
            if len(waiting) > 1:
                yield waiting.popleft()
    except Exception:
        yield from waiting
        raise
    yield from waiting


def in_groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The same items in lists of ``size``, the last may be shorter; an error is raised after all items before it."""
    group: list[Item] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == size:
                yield group
                group = []
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def read_ahead(items: Iterable[Item], count: int = 4) -> Iterator[Item]:
    """The same items, produced in a thread up to ``count`` ahead; an error is raised in the place of its item."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        ahead = deque(thread.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(thread.submit(next, iterator, end))
                yield item
        finally:
            for future in ahead:
                future.cancel()


class Workers:
    """Threads for background work; a context manager that ends when all jobs are done.

    At most ``waiting`` jobs are queued, which bounds the memory. The first error of a job is raised by the next :meth:`submit`
    or at the end. After an error outside, queued jobs still run; after a keyboard interrupt they are dropped.
    """

    def __init__(self, threads: int, waiting: int = 16):
        self._pool = ThreadPoolExecutor(threads)
        self._limit = threads + waiting
        self._futures: deque[Future] = deque()

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future:
        """Runs ``job(*arguments)`` in a thread; with one thread in order."""
        while self._futures and (len(self._futures) >= self._limit or self._futures[0].done()):
            self._futures.popleft().result()
        self._futures.append(self._pool.submit(job, *arguments))
        return self._futures[-1]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            interrupted = kind is not None and not issubclass(kind, Exception)
            stack.callback(self._pool.shutdown, wait=True, cancel_futures=interrupted)
            while self._futures and kind is None:
                self._futures.popleft().result()
