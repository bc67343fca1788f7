"""Golden arrays: reading them, comparing with them, and a ledger of all comparisons.

A file ``NAME.npz`` holds ``in.*``, ``out.*``, checksums of weights that are regenerated from a recipe, and ``meta`` (JSON:
arguments, cases, tolerances). A parity test compares the ``out.*`` arrays with ours or leaves them out by name and reason;
an array that no test mentions fails the session, also in a file without a test. Sizes, prefixes and arguments always come
from the file. In a folder named by ``--golden``, a test fails if a file or an array that it needs is absent. The committed
folder is a subset: there such a test is skipped.
"""

import ast
import contextlib
import fnmatch
import json
import re
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

COMMITTED = Path(__file__).parent.parent / "golden"


def is_named(folder: Path) -> bool:
    """Whether the folder was given on the command line (:data:`COMMITTED` is the default)."""
    return folder.resolve() != COMMITTED.resolve()


def stop_without(folder: Path, reason: str):
    """Ends a test that needs what ``folder`` lacks: fails it in a named folder, skips it in the committed one."""
    if is_named(folder):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def nhwc(x):
    """(…, c, h, w) -> (…, h, w, c)"""
    return np.moveaxis(np.asarray(x), -3, -1)


def nchw(x):
    """(…, h, w, c) -> (…, c, h, w)"""
    return np.moveaxis(np.asarray(x), -1, -3)


def patterns_of(item) -> tuple[str, ...]:
    """File stems or globs named by the test's ``golden`` mark."""
    mark = item.get_closest_marker("golden")
    assert mark is not None and mark.args, f"{item.name} uses the golden fixture: mark it @pytest.mark.golden(stem, ...)"
    return mark.args


class Golden:
    """One file of golden arrays; comparisons are recorded and the test fails after its last line."""

    def __init__(self, path: Path):
        self.path, self.stem = Path(path), Path(path).stem
        with np.load(path) as archive:
            self._arrays = {name: archive[name] for name in archive.files}
        self.meta = json.loads(str(self._arrays.pop("meta")))
        self.checks: list[tuple] = []
        self.left_out: list[tuple[str, str]] = []
        self.absent: list[str] = []
        self.failures: list[str] = []

    def __getitem__(self, name: str) -> np.ndarray:
        """An array; if it is absent the test ends here (see :func:`stop_without`; earlier comparisons count)."""
        if name not in self:
            self._stop_without(name)
        return self._arrays[name]

    def _stop_without(self, name: str):
        self.absent.append(f"{name} (a test needs it to continue)")
        stop_without(self.path.parent, f"{self.stem} needs {name}, which is absent")

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self, pattern: str = "out.*") -> list[str]:
        """Names of arrays that match a shell pattern."""
        return [name for name in self._arrays if fnmatch.fnmatchcase(name, pattern)]

    def companion(self, stem: str) -> "Golden":
        """Another file of the same folder (inputs only); the test ends here if it is absent."""
        path = self.path.with_name(stem.removesuffix(".npz") + ".npz")
        if not path.exists():
            self._stop_without(path.name)
        other = Golden(path)
        other.absent = self.absent
        return other

    def check(self, name: str, value, where=None, at_least=0.0) -> None:
        """Compares ``value`` (in the golden's layout) under the file's own tolerance [atol, share of elements over it].

        ``where`` restricts the comparison to the elements on which both methods agree by design, ``at_least`` raises atol per
        element; the test explains both. An absent array is recorded, and fails the test in a named folder.
        """
        if name not in self:
            self.absent.append(name)
            if is_named(self.path.parent):
                self.failures.append(f"{self.stem}: {name} is absent")
            return
        expected, value = self[name], np.asarray(value)
        atol, allowed = self.meta["tolerance"].get(name.removeprefix("out."), (0.0, 0.0))
        if value.shape != expected.shape:
            self._record(name, np.inf, atol, 1.0, allowed, 0.0, f"shape {value.shape} instead of {expected.shape}")
            return
        if expected.dtype.kind in "fc":
            with np.errstate(invalid="ignore"):  # inf - inf
                error = np.asarray(np.abs(value.astype(np.float64) - expected.astype(np.float64)))
            error[np.isnan(error)] = np.inf
            error[(value == expected) | (np.isnan(value) & np.isnan(expected))] = 0.0
        else:
            error, atol = np.asarray(np.abs(value.astype(np.int64) - expected.astype(np.int64))), 0
        limit = np.broadcast_to(np.maximum(atol, at_least), expected.shape)
        if where is not None:
            error, limit = (x[np.broadcast_to(where, expected.shape)] for x in (error, limit))
        if not error.size:
            self._record(name, np.inf, atol, 1.0, allowed, 0.0, "no element is compared")
            return
        over = float(np.mean(error > limit))
        problem = "" if over <= allowed else "too far"
        self._record(name, float(error.max()), atol, over, allowed, error.size / expected.size, problem)

    def _record(self, name, worst, atol, over, allowed, compared, problem):
        self.checks.append((name, worst, atol, over, allowed, compared, not problem))
        if problem:
            self.failures.append(
                f"{self.stem}: {name}: {problem}: largest error {worst:.3g}, {over:.4%} of the elements are off by more than "
                f"{atol:.3g} (allowed {allowed:.4%})"
            )

    def leave_out(self, pattern: str, reason: str) -> None:
        """Declares arrays that are not reproduced, and why."""
        names = self.names(pattern)
        if not names:
            self.absent.append(pattern)
        self.left_out += [(name, reason) for name in names]

    def weights(self, net: str) -> dict[str, np.ndarray]:
        """State dict of a network by the fixtures' recipe, verified against the stored checksums."""
        recipe = self.meta["weights"][net]
        state = {key: _weight(key, tuple(shape), recipe) for key, shape in recipe["keys"]}
        total = [np.sum(a, dtype=np.float64) for a in state.values()]
        norm = [np.sqrt(np.sum(np.square(a, dtype=np.float64))) for a in state.values()]
        np.testing.assert_allclose(total, self[f"weights.{net}.sum"], rtol=1e-6, atol=1e-4, err_msg=net)
        np.testing.assert_allclose(norm, self[f"weights.{net}.l2"], rtol=1e-6, err_msg=net)
        return state

    def as_json(self, module: str, test: str) -> str:
        """Results of a finished test for the ledger, as text, so that they can be passed between processes."""
        return json.dumps([module, test, self.stem, self.checks, self.left_out, self.absent])


def _weight(key: str, shape: tuple[int, ...], recipe: dict) -> np.ndarray:
    z = np.random.default_rng(zlib.crc32((recipe["prefix"] + key).encode())).standard_normal(shape)
    if key.endswith(".num_batches_tracked"):
        a = np.zeros(shape)
    elif key.endswith(".running_var"):
        a = np.abs(1 + 0.1 * z)
    elif key.endswith((".running_mean", ".bias")):
        a = 0.1 * z
    elif len(shape) == 1:
        a = 1 + 0.1 * z
    else:
        a = z * np.sqrt(2 / np.prod(shape[1:]))
    for pattern, scale, shift in recipe["amend"]:
        if re.fullmatch(pattern, key):
            a = a * scale + shift
    return np.asarray(a, np.float32)


def registered_tests(folder: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """(module, test) -> patterns of its golden decorator, for every parity test on disk, collected or not."""
    found = {}
    for path in sorted(folder.glob("test_*.py")):
        body = ast.parse(path.read_text()).body
        constants = {}  # module-level literals: a mark may name them
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                with contextlib.suppress(ValueError):
                    constants[node.targets[0].id] = ast.literal_eval(node.value)
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.golden":
                    starred = [arg.value if isinstance(arg, ast.Starred) else ast.List([arg]) for arg in mark.args]
                    values = [constants[arg.id] if isinstance(arg, ast.Name) else ast.literal_eval(arg) for arg in starred]
                    found[path.name, node.name] = tuple(pattern for value in values for pattern in value)
    return found


class Ledger:
    """Pytest plugin: the table of all comparisons, and the failure when an output array is not accounted for.

    Raises:
      pytest.UsageError: the folder named by ``--golden`` holds no golden file.
    """

    def __init__(self, config):
        self.config, self.folder = config, Path(config.getoption("--golden"))
        self.named = is_named(self.folder)
        if self.named and not any(self.folder.glob("*.npz")):
            raise pytest.UsageError(f"--golden: no .npz file in {self.folder}: give the folder of the golden arrays")
        self.ran = False  # any parity test
        self.checks, self.left_out, self.absent = defaultdict(list), defaultdict(list), defaultdict(dict)
        self.passed = defaultdict(set)

    def pytest_runtest_logreport(self, report):
        self.ran |= "golden" in report.keywords
        if report.when != "call":
            return
        for key, text in report.user_properties:
            if key == "golden":
                module, test, stem, checks, left_out, absent = json.loads(text)
                self.checks[stem] += checks
                self.left_out[stem] += left_out
                self.absent[stem] |= dict.fromkeys(absent)
                self.passed[stem] |= {(module, test)} if report.passed else set()

    def problems(self) -> tuple[list[str], list[str]]:
        """Reasons to fail the session, and files of which only some tests passed.

        Reasons: arrays not accounted for, in files whose tests all passed or that have no test; nothing was compared at all.
        """
        tests, wrong, partial = registered_tests(Path(__file__).parent), [], []
        for stem in sorted(path.stem for path in self.folder.glob("*.npz")):
            needed = {test for test, patterns in tests.items() if any(fnmatch.fnmatchcase(stem, p) for p in patterns)}
            if needed and not (self.checks[stem] or self.left_out[stem] or self.passed[stem]):
                continue  # no test of this file was run, or none reached a comparison
            if absent := sorted(test for _, test in needed - self.passed[stem]):
                partial.append(f"{stem} (not run, or failed: {', '.join(absent)})")
                continue
            with np.load(self.folder / f"{stem}.npz") as archive:
                outputs = {name for name in archive.files if name.startswith("out.")}
            if not needed and outputs:
                wrong.append(f"{stem}: no test reads this file ({len(outputs)} arrays)")
                continue
            checked, left = {name for name, *_ in self.checks[stem]}, {name for name, _ in self.left_out[stem]}
            wrong += [f"{stem}: {name} is neither checked nor left out" for name in sorted(outputs - checked - left)]
            wrong += [f"{stem}: {name} is both checked and left out" for name in sorted(checked & left)]
        if self.named and not any(self.checks.values()):
            wrong.append(f"nothing was compared: {self.folder} contains no array of the tests that were run")
        return wrong, partial

    def missing(self) -> list[str]:
        """Arrays and files that the tests need and the folder lacks: arrays of files that were read, and whole files (only of a
        folder given on the command line; the committed one is a subset)."""
        lines = [f"{stem} lacks {', '.join(names)}" for stem, names in sorted(self.absent.items()) if names]
        patterns = {p for patterns in registered_tests(Path(__file__).parent).values() for p in patterns}
        files = sorted(pattern for pattern in patterns if not any(self.folder.glob(f"{pattern}.npz")))
        return lines + ([f"no file {', '.join(files)}"] if files and self.named else [])

    def pytest_sessionfinish(self, session):
        sums_up = self.ran and not hasattr(self.config, "workerinput")
        if sums_up and session.exitstatus == pytest.ExitCode.OK and self.problems()[0]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if not self.ran:
            return
        out = terminalreporter
        out.section("golden arrays")
        head = ("max error", "atol", "over", "allowed", "compared")
        out.line(f"{'file':<28} {'array':<52} " + " ".join(f"{x:>10}" for x in head))
        for stem in sorted(self.checks):
            for name, worst, atol, over, allowed, compared, ok in self.checks[stem]:
                row = f"{stem:<28} {name:<52} {worst:>10.2e} {atol:>10.2e} {over:>10.3%} {allowed:>10.3%} {compared:>10.1%}"
                out.line(row if ok else row + "  FAILED", red=not ok)
        for stem in sorted(self.left_out):
            reasons = defaultdict(list)
            for name, reason in self.left_out[stem]:
                reasons[reason].append(name)
            for reason, names in reasons.items():
                out.line(f"{stem}: left out, {reason}: {', '.join(names)}")
        wrong, partial = self.problems()
        if partial:
            out.line(f"not accounted for, because not all tests of the file ran and passed: {'; '.join(partial)}")
        missing = self.missing()
        for line in missing:
            out.line(f"ABSENT: {line}", yellow=True)
        for line in wrong:
            out.line(f"ERROR {line}", red=True)
        count = sum(map(len, self.checks.values()))
        passed = sum(row[-1] for rows in self.checks.values() for row in rows)
        left, absent = (sum(map(len, found.values())) for found in (self.left_out, self.absent))
        out.line(
            f"{passed} of {count} arrays agree, {left} left out, {absent} absent from their files, {len(wrong)} not accounted for"
        )
