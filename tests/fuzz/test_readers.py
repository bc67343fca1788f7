"""Every reader of files returns what its signature promises or refuses the file in one sentence, whatever its bytes are."""

import campaign
import pytest
import readers

pytestmark = pytest.mark.fuzz


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with campaign.Worker(tmp_path_factory.mktemp("fuzz")) as worker:
        yield worker


@pytest.mark.parametrize("name", readers.ALL)
def test_no_variant_of_a_file_surprises(name, request, worker, record):
    option = request.config.getoption
    seconds = option("--fuzz-seconds") if readers.ALL[name].dear else float("inf")
    found = worker.campaign(name, option("--fuzz-seed"), option("--fuzz-count"), seconds)
    record(name, found)
    assert found["inputs"] and not found["faults"], found["faults"]
