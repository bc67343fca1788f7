"""The order in which other programs know the frames of a test split.

Depth of a whole split travels without names, as one array or as numbered files: ``disps_eigen_split.npy`` and ``gt_depths.npz``
of Monodepth2's family, ManyDepth's predictions and depths of Cityscapes. An entry then belongs to a line of the published list.
Here the frames follow from rules where there is no list; these give the set and another order, in which every entry
would meet a wrong frame, and nothing but the scores would tell.
"""

from collections.abc import Sequence

from dd_jax.config import ConfigError
from dd_jax.data.cityscapes import splits
from dd_jax.data.kitti.split_tables import KNOWN, TEST_ORDERS
from dd_jax.data.splits import list_digest

CITYSCAPES = "cityscapes/test_files.txt"

PUBLISHED = {(KNOWN[name].lines, KNOWN[name].digest): (name, order) for name, order in TEST_ORDERS.items()} | {
    (1525, splits.PUBLISHED[1525][0]): (CITYSCAPES, splits.TEST_ORDER)
}
"""Count and digest of the set of a published test list -> its path below ``splits``, and the start of its digest in its order."""


def other_order(names: Sequence[str]) -> str:
    """The published list that has the lines ``names`` in another order; "" if it has them in this one, or none has them."""
    if len(names) not in {count for count, _ in PUBLISHED}:
        return ""
    name, order = PUBLISHED.get((len(names), list_digest(names)), ("", ""))
    return name if name and not list_digest(names, ordered=True).startswith(order) else ""


def refuse_other(out_of_order: str, what: str, instead: str) -> None:
    """Lets only what has names pass where the frames are in another order than the list ``out_of_order`` ("" = they are not).

    Args:
      what: has no names; the message begins with it.
      instead: what helps besides the list.

    Raises:
      ConfigError: they are.
    """
    if out_of_order:
        raise ConfigError(
            f"{what} goes by the lines of the published {out_of_order}, and the frames are in another order here: put that list, "
            "from the splits folder of the public ManyDepth repository, into ROOT/splits, or name its folder with "
            f"--split_dir or --config.data.split_dir (and make a store anew with it); or {instead}"
        )
