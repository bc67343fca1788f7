import threading
import time

import pytest

from dd_jax.runtime.pipeline import Workers, in_groups, one_behind, read_ahead


def noisy(events, count):
    for number in range(count):
        events.append(number)
        yield number


def test_one_behind_yields_after_next_request():
    events = []
    for number in one_behind(noisy(events, 4)):
        events.append(f"got {number}")
    assert events == [0, 1, "got 0", 2, "got 1", 3, "got 2", "got 3"]
    assert list(one_behind([])) == []


def test_one_behind_raises_after_earlier_items():
    def items():
        yield from (1, 2)
        raise ValueError("broken")

    found = one_behind(items())
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_groups_yielded_when_full_and_at_the_end():
    events = []
    for group in in_groups(noisy(events, 5), 2):
        events.append(group)
    assert events == [0, 1, [0, 1], 2, 3, [2, 3], 4, [4]]
    assert list(in_groups([], 2)) == []


def test_groups_raise_after_incomplete_group():
    def items():
        yield from (1, 2, 3)
        raise ValueError("broken")

    found = in_groups(items(), 2)
    assert [next(found), next(found)] == [[1, 2], [3]]
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_read_ahead_keeps_order():
    events, enough = [], threading.Event()

    def items():
        for number in range(10):
            events.append(number)
            if number == 3:
                enough.set()
            yield number

    found = read_ahead(items(), count=3)
    assert next(found) == 0 and enough.wait(10)  # only the first was requested
    time.sleep(0.01)
    assert len(events) <= 5
    assert list(found) == list(range(1, 10))


def test_read_ahead_raises_in_place_of_item():
    def items():
        yield 1
        raise ValueError("broken")

    found = read_ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_one_worker_keeps_order():
    done = []
    with Workers(1) as workers:
        for number in range(50):
            workers.submit(done.append, number)
    assert done == list(range(50))


def test_queue_bounded():
    gate, started = threading.Semaphore(0), []

    def job(number):
        started.append(number)
        gate.acquire()

    with Workers(2, waiting=3) as workers:
        submitted = threading.Thread(target=lambda: [workers.submit(job, number) for number in range(8)])
        submitted.start()
        submitted.join(0.2)
        assert submitted.is_alive()  # the sixth has to wait until the first is done
        for _ in range(8):
            gate.release()
        submitted.join(10)
    assert sorted(started) == list(range(8))


def test_error_of_job_raised():
    with pytest.raises(OSError, match="full"), Workers(1) as workers:
        workers.submit(_fail)
    with pytest.raises(OSError, match="full"), Workers(1, waiting=0) as workers:
        for _ in range(100):
            workers.submit(_fail)


def test_queued_jobs_run_after_error_and_dropped_after_interrupt():
    for error, done in ((KeyError, True), (KeyboardInterrupt, False)):
        with pytest.raises(error), Workers(1) as workers:
            workers.submit(time.sleep, 0.05)
            waiting = workers.submit(time.sleep, 0.0)
            raise error
        assert waiting.done() and waiting.cancelled() != done


def _fail():
    raise OSError("disk full")
