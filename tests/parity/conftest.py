"""Runs a test marked ``@pytest.mark.golden("c01_*")`` once per matching file of ``--golden``."""

from pathlib import Path

import pytest
from harness import Golden, patterns_of, stop_without


def pytest_generate_tests(metafunc):
    if "golden" not in metafunc.fixturenames:
        return
    patterns = patterns_of(metafunc.definition)
    folder = Path(metafunc.config.getoption("--golden"))
    paths = sorted({path for pattern in patterns for path in folder.glob(f"{pattern}.npz")})
    params = [pytest.param(path, id=path.stem) for path in paths]
    metafunc.parametrize("golden", params or [pytest.param(None, id="none")], indirect=True)


@pytest.fixture
def golden(request):
    """The arrays of one file, see :class:`harness.Golden`; None where the folder has no file for the test."""
    return request.param and Golden(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if "golden" not in item.fixturenames:
        return (yield)
    opened = item.funcargs["golden"]
    if opened is None:
        folder = Path(item.config.getoption("--golden"))
        stop_without(folder, f"no file {' or '.join(patterns_of(item))}.npz in {folder}")
    try:
        result = yield
    except pytest.skip.Exception:  # an input is absent; what was compared before counts
        if not opened.failures:
            raise
    finally:
        item.user_properties.append(("golden", opened.as_json(item.path.name, item.originalname)))
    if opened.failures:
        pytest.fail("\n".join(opened.failures), pytrace=False)
    return result
