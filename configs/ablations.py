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
GROUND = DYNAMIC | {"domd.depth": "ground"}
TRAINED_TEACHER = {"optim.freeze_step": -1, "model.pose_refinement": 0}
"""For terms that train teacher or pose network, which are fixed in the other rows; refined poses would not train them."""

ROWS = {
    "many_depth": Row("ManyDepth", MANY),
    "dynamic_depth": Row("DynamicDepth", DYNAMIC, "many_depth", published=0.1073),
    "dynamic_ground": Row("DynamicDepth, objects on the ground", GROUND, "many_depth"),
    # The poster's additions that train the student, where DOMD works.
    "normal_l1": Row("L1 normal", GROUND | {"loss.normal_l1": 1.0}, "dynamic_ground", published=0.1134),
    "normals": Row("L1 + ranking", GROUND | {"loss.normal_l1": 1.0, "loss.normal_rank": 1.0}, "dynamic_ground", published=0.1125),
    "normals_weighted": Row(
        "L1 + ranking (weighted)", GROUND | {"loss.normal_l1": 0.1, "loss.normal_rank": 0.1}, "dynamic_ground", published=0.1075
    ),
    "mask_less": Row("more dynamic, less loss", GROUND | {"loss.mask_weight": "less"}, "dynamic_ground", published=0.1056),
    "mask_more": Row("more dynamic, more loss", GROUND | {"loss.mask_weight": "more"}, "dynamic_ground", published=0.1088),
    # Holes of the lookup frame in the cost volume; DynamicDepth pools features.
    "fill_none": Row("holes not filled", GROUND | {"cost_volume.occlusion": "none"}, "dynamic_ground"),
    "fill_one": Row("holes set to one", GROUND | {"cost_volume.occlusion": "set_one"}, "dynamic_ground"),
    "fill_cost": Row("costs filled", GROUND | {"cost_volume.occlusion": "cost_fill"}, "dynamic_ground"),
    "next_frame": Row("next frame too", GROUND | {"cost_volume.future_frame": True}, "dynamic_ground"),
    # Teacher and pose network train too.
    "dynamic_trained": Row("DynamicDepth, teacher and pose trained", GROUND | TRAINED_TEACHER, "dynamic_ground"),
    "pose_cycle": Row("pose cycle", GROUND | TRAINED_TEACHER | {"loss.pose_cycle": 0.1}, "dynamic_trained", published=0.1066),
    "flow_net": Row("flow network", GROUND | TRAINED_TEACHER | {"model.flow": True}, "dynamic_trained", published=0.1091),
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
