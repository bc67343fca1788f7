"""The rows of the results table: DynamicDepth plus one change each, and the methods it is compared with.

    python scripts/train.py --config=configs/ablations.py:pose_cycle --workdir=runs/pose_cycle
    python scripts/train.py --config=configs/ablations.py:pose_cycle/cityscapes --config.data.root=CITYSCAPES --workdir=runs/cycle
    python scripts/run_ablations.py --config=configs/ablations.py --seeds=3 --out=runs/ablations

``ROW/VARIANT`` takes any variant of dynamic_depth.py; the default is "ablation", 64x192 on the drives of
``make_synthetic.py --preset small``. Time and scores of each row: docs/results.md.
"""

import dataclasses
from collections.abc import Callable

from configs import ds_depth, dynamic_depth, many_depth, monodepth2, sc_depth_v3
from dd_jax.config import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    changes: dict[str, object] = dataclasses.field(default_factory=dict)  # "section.field" -> value, over the method's config
    system: Callable[[str], Config] = dynamic_depth.get_config
    published: tuple[float, ...] | None = None  # abs_rel ... a3 of the poster: Cityscapes, one run


BASELINE = "baseline"

ROWS = {
    BASELINE: Row("Dynamic-Depth", published=(0.1073, 1.0856, 6.0305, 0.1605, 0.8875, 0.9720, 0.9910)),
    # The poster's additions.
    "normal_l1": Row("L1 normal", {"loss.normal_l1": 1.0}, published=(0.1134, 1.1123, 6.1344, 0.1670, 0.8730, 0.9689, 0.9901)),
    "normals": Row(
        "L1 + ranking",
        {"loss.normal_l1": 1.0, "loss.normal_rank": 1.0},
        published=(0.1125, 1.1128, 6.2354, 0.1673, 0.8751, 0.9694, 0.9904),
    ),
    "normals_weighted": Row(
        "L1 + ranking (weighted)",
        {"loss.normal_l1": 0.1, "loss.normal_rank": 0.1},
        published=(0.1075, 1.0613, 6.1773, 0.1634, 0.8804, 0.9707, 0.9909),
    ),
    "pose_cycle": Row(
        "Pose cycle consistency", {"loss.pose_cycle": 0.1}, published=(0.1066, 1.0660, 6.0124, 0.1599, 0.8893, 0.9724, 0.9910)
    ),
    "mask_less": Row(
        "Mask weight, more dynamic → less loss",
        {"loss.mask_weight": "less"},
        published=(0.1056, 1.0620, 6.0105, 0.1595, 0.8898, 0.9725, 0.9911),
    ),
    "mask_more": Row(
        "Mask weight, more dynamic → more loss",
        {"loss.mask_weight": "more"},
        published=(0.1088, 1.1310, 6.0790, 0.1624, 0.8858, 0.9712, 0.9901),
    ),
    "flow_net": Row("Flow Net", {"model.flow": True}, published=(0.1091, 1.1080, 6.0390, 0.1635, 0.8842, 0.9707, 0.9905)),
    # DynamicDepth's own components.
    "no_domd": Row("without DOMD", {"domd.enabled": False, "cost_volume.occlusion": "none", "loss.occlusion_rule": "min"}),
    "objects_excluded": Row("objects excluded from the loss", {"domd.exclude_from_loss": True}),
    "rule_union": Row("occlusion rule: union", {"loss.occlusion_rule": "union"}),
    "rule_min": Row("occlusion rule: min (ignore holes)", {"loss.occlusion_rule": "min"}),
    "fill_none": Row("cost volume: holes not filled", {"cost_volume.occlusion": "none"}),
    "fill_one": Row("cost volume: holes set to one", {"cost_volume.occlusion": "set_one"}),
    "fill_cost": Row("cost volume: costs filled", {"cost_volume.occlusion": "cost_fill"}),
    "future_min": Row("cost volume: next frame too, smaller cost", {"cost_volume.future_frame": True}),
    "future_mean": Row("cost volume: next frame too, mean", {"cost_volume.future_frame": True, "cost_volume.aggregate": "mean"}),
    "bins_inverse": Row("cost volume: bins even in inverse depth", {"cost_volume.binning": "inverse"}),
    "bins_log": Row("cost volume: bins even in log depth", {"cost_volume.binning": "log"}),
    "dynamic_cycle": Row("dynamic-object cycle consistency", {"loss.dynamic_cycle": 0.1}),
    "bfloat16": Row("networks in bfloat16", {"model.precision": "bfloat16"}),
    # The methods it is compared with.
    "many_depth": Row("ManyDepth", system=many_depth.get_config),
    "ds_depth": Row("DS-Depth", system=ds_depth.get_config),
    "ds_pyramid": Row("DS-Depth + pyramid distillation", {"loss.pyramid_distillation": 1e-3}, ds_depth.get_config),
    "sc_depth_v3": Row("SC-DepthV3 (with prior depth)", system=sc_depth_v3.get_config),
    "monodepth2": Row("Monodepth2", system=monodepth2.get_config),
}


def get_config(name: str = BASELINE) -> Config:
    """The config of ``ROW`` or ``ROW/VARIANT``.

    Raises:
      ConfigError: no such row or variant.
    """
    key, _, variant = name.partition("/")
    if key not in ROWS:
        raise ConfigError(f"configs/ablations.py has no row {key!r}: {', '.join(ROWS)}")
    row = ROWS[key]
    config = row.system(variant or "ablation")
    config.name = key
    for flag, value in row.changes.items():
        section, field = flag.split(".")
        setattr(getattr(config, section), field, value)
    return config
