import numpy as np
import pytest
from fakes import FakeSource

from dd_jax.diagnosis.lookup import LookupSource, partners

INDICES = np.array([0, 2, 5])


@pytest.mark.parametrize("sizes", [(3, 3), (1, 5), (5, 1), (2, 3, 4)])
def test_partner_is_of_another_drive(sizes):
    drives = [str(drive) for drive, size in enumerate(sizes) for _ in range(size)]
    found = partners(drives)
    assert all(drives[index] != drives[partner] for index, partner in enumerate(found))


def test_partner_in_a_single_drive_is_another_sample_far_away():
    found = partners(["a"] * 10)
    assert (np.abs(found - np.arange(10)) == 5).all()
    assert partners(["a", "a", "a"]).tolist() == [1, 2, 0]


@pytest.mark.parametrize("frames", [2, 3])
def test_only_neighbours_of_the_target_change(frames):
    source = FakeSource(6)
    plain = source.gather(INDICES, frames)
    neighbours = [0, 2][: frames - 1]
    for lookup in ("other", "none", "target"):
        changed = LookupSource(source, lookup)
        found = changed.gather(INDICES, frames)
        for name in ("images", "masks", "exists"):
            np.testing.assert_array_equal(found[name][:, 1], plain[name][:, 1])
        np.testing.assert_array_equal(found["K"], plain["K"])
        assert found["exists"][:, neighbours].any() == (lookup != "none")
        assert len(changed) == 6 and changed.name(4) == source.name(4)
        np.testing.assert_array_equal(changed.ground_truth(4, "annotated").depth, source.depth[4])


def test_lookup_frames_are_the_target_or_another_samples_target():
    source = FakeSource(6)
    same = LookupSource(source, "target").gather(INDICES, 3)
    for place in (0, 2):
        np.testing.assert_array_equal(same["images"][:, place], same["images"][:, 1])
        np.testing.assert_array_equal(same["masks"][:, place], same["masks"][:, 1])
    other = LookupSource(source, "other").gather(INDICES, 2)
    assert other["images"][:, 0, 0, 0, 0].tolist() == [3, 5, 2]  # a FakeSource writes the index there
    assert other["images"][:, 1, 0, 0, 0].tolist() == INDICES.tolist()
