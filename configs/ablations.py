"""The rows of the results table: every row continues one trained model with one change.

    python scripts/run_ablations.py --base=runs/many_depth --seeds=3 --out=runs/ablations
    python scripts/train.py --config=configs/ablations.py:pose_cycle/runs/many_depth --workdir=runs/pose_cycle

``ROW/BASE``: BASE is the folder of a run or of a saved model, or the name of a bundled one: a trained ManyDepth, or teacher and
pose network only. A row has the config of the base, except for its changes and the schedule (``plan.fine_tuned``).
"""

from dd_jax.ablations import plan
from dd_jax.ablations.plan import Row
from dd_jax.config import Config, ConfigError

STEPS = 1_000

MANY = {
    "model.student": True,
    "domd.enabled": False,
    "domd.depth": "teacher",
    "cost_volume.occlusion": "none",
    "cost_volume.aggregate": "mean",
    "cost_volume.future_frame": False,
    "loss.occlusion_rule": "min",
}
DYNAMIC = MANY | {
    "domd.enabled": True,
    "cost_volume.occlusion": "feature_pool",
    "cost_volume.aggregate": "min",
    "loss.occlusion_rule": "switch",
}
TRAINED_TEACHER = {"optim.freeze_step": -1, "model.pose_refinement": 0}
"""For terms that train teacher or pose network, which are fixed in the other rows; refined poses would not train them."""

ROWS = {
    "many_depth": Row("ManyDepth", MANY),
    "dynamic_depth": Row("DynamicDepth", DYNAMIC, "many_depth", published=0.1073),
    "dynamic_ground": Row("DynamicDepth, objects on the ground", DYNAMIC | {"domd.depth": "ground"}, "many_depth"),
    # The poster's additions that train the student.
    "normal_l1": Row("L1 normal", DYNAMIC | {"loss.normal_l1": 1.0}, "dynamic_depth", published=0.1134),
    "normals": Row("L1 + ranking", DYNAMIC | {"loss.normal_l1": 1.0, "loss.normal_rank": 1.0}, "dynamic_depth", published=0.1125),
    "normals_weighted": Row(
        "L1 + ranking (weighted)", DYNAMIC | {"loss.normal_l1": 0.1, "loss.normal_rank": 0.1}, "dynamic_depth", published=0.1075
    ),
    "mask_less": Row("more dynamic, less loss", DYNAMIC | {"loss.mask_weight": "less"}, "dynamic_depth", published=0.1056),
    "mask_more": Row("more dynamic, more loss", DYNAMIC | {"loss.mask_weight": "more"}, "dynamic_depth", published=0.1088),
    # Holes of the lookup frame in the cost volume; DynamicDepth pools features.
    "fill_none": Row("holes not filled", DYNAMIC | {"cost_volume.occlusion": "none"}, "dynamic_depth"),
    "fill_one": Row("holes set to one", DYNAMIC | {"cost_volume.occlusion": "set_one"}, "dynamic_depth"),
    "fill_cost": Row("costs filled", DYNAMIC | {"cost_volume.occlusion": "cost_fill"}, "dynamic_depth"),
    "next_frame": Row("next frame too", DYNAMIC | {"cost_volume.future_frame": True}, "dynamic_depth"),
    # Teacher and pose network train too.
    "dynamic_trained": Row("DynamicDepth, teacher and pose trained", DYNAMIC | TRAINED_TEACHER, "dynamic_depth"),
    "pose_cycle": Row("pose cycle", DYNAMIC | TRAINED_TEACHER | {"loss.pose_cycle": 0.1}, "dynamic_trained", published=0.1066),
    "flow_net": Row("flow network", DYNAMIC | TRAINED_TEACHER | {"model.flow": True}, "dynamic_trained", published=0.1091),
    "many_trained": Row("ManyDepth, teacher and pose trained", MANY | TRAINED_TEACHER, "many_depth"),
    "ds_depth": Row(
        "DS-Depth",
        MANY | TRAINED_TEACHER | {"ds.enabled": True, "cost_volume.window": 1, "loss.smoothness": 2e-4},
        "many_trained",
    ),
}
"""``published``: abs_rel of the poster, Cityscapes, one run each."""


def get_config(name: str) -> Config:
    """The config of ``ROW/BASE``.

    Raises:
      ConfigError: no such row or base.
    """
    row, _, base = name.partition("/")
    if row not in ROWS or not base:
        raise ConfigError(f"configs/ablations.py:{name} must be ROW/BASE, a row of {', '.join(ROWS)} and a trained model")
    return plan.fine_tuned(ROWS[row], row, base, STEPS)
