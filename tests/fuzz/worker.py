"""Reads damaged variants of one kind of file; each campaign is a child process of this one, which imports once for all.

``campaign`` writes jobs to the standard input, arguments of :func:`main` as JSON. The number of each variant is written to the
file ``place`` before it is read, so that a crash has an address; faults, the summary and the exit status go to the file ``out``.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from jaxtyping import install_import_hook

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Files in memory are written faster."""

SLOW = 2.0
"""Seconds of computation for one variant, beyond which it is a fault."""

ROOM, PER_BYTE = 64 << 20, 100
"""Bytes by which one variant may raise the peak of the resident memory: so many, and so many for each of its bytes."""

ADDRESSES = 1 << 30
"""Bytes of address space beyond those in use at the start."""

MOST = 20
"""Faults after which the process ends."""

ACCEPTED, REFUSED = "accepted", "refused"


def main(name: str, seed: int, first: int, count: int, seconds: float, place: str, out: str) -> None:
    """Reads the variants ``first .. first + count``, as many as the time allows."""
    reader, counts = readers.ALL[name], {ACCEPTED: 0, REFUSED: 0, "faults": 0}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, open(out, "w") as lines, open(place, "r+b", 0) as place_file:
        path = Path(folder) / reader.file
        seeds = reader.prepare(path)
        for data in seeds:  # also imports what is imported at first use
            path.write_bytes(data)
            reader.check(reader.read(path))
        limit_addresses()
        start = time.monotonic()
        for index in range(first, first + count):
            os.pwrite(place_file.fileno(), index.to_bytes(8, "little"), 0)
            data = reader.variant(random.Random(f"{seed} {name} {index}"), seeds)
            path.write_bytes(data)
            began, before = time.process_time(), peak()
            found = outcome(reader, path)
            took, grown = time.process_time() - began, peak() - before
            if took > SLOW:
                found = f"takes {took:.1f} s"
            if grown > ROOM + PER_BYTE * len(data):
                found = f"takes {grown >> 20} MiB"
            if found in counts:
                counts[found] += 1
            else:
                counts["faults"] += 1
                lines.write(json.dumps({"index": index, "fault": found, "input": data[:600].hex()}) + "\n")
                lines.flush()
            if time.monotonic() - start > seconds or counts["faults"] >= MOST:
                break
        lines.write(json.dumps({"done": index + 1 - first, **counts}) + "\n")


def outcome(reader, path: Path) -> str:
    """:data:`ACCEPTED`, :data:`REFUSED`, or what is wrong."""
    try:
        value = reader.read(path)
    except reader.errors as error:
        return unclear(str(error), reader.named) or REFUSED
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/dd_jax/" in frame.filename]
        where = f"{frames[-1].filename.rpartition('/dd_jax/')[2]}:{frames[-1].lineno}" if frames else "elsewhere"
        return f"{type(error).__name__} in {where}: {str(error)[:300]}"
    try:
        reader.check(value)
    except Exception as error:
        return f"breaks its contract: {traceback.extract_tb(error.__traceback__)[-1].line}: {str(error)[:300]}"
    return ACCEPTED


def unclear(message: str, named: str) -> str:
    """What is wrong with a message, which is one sentence that contains ``named``; "" if nothing is."""
    if not message.isprintable():
        return f"a message that is not one line of text: {message[:300]!r}"
    if len(message) > LONGEST_MESSAGE:
        return f"a message of {len(message)} characters: {message[:300]}"
    return "" if named in message else f"a message without the file: {message[:300]}"


def peak() -> int:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def limit_addresses() -> None:
    """Larger allocations fail from here on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def serve() -> None:
    """Runs each job in a child."""
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os.dup2(2, 1)  # libraries print as well
            try:
                main(**job)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "os.fork")
    with install_import_hook("dd_jax", "beartype.beartype"):  # results have the types and shapes of the signatures
        import readers

        from dd_jax.config.schema import LONGEST_MESSAGE
    serve()
