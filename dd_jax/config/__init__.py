"""Configuration: all options (``schema``), their validation (``rules``), the evaluation protocols (``protocols``)."""

from dd_jax.config.schema import (
    AugmentConfig,
    Config,
    ConfigError,
    CostVolumeConfig,
    DataConfig,
    DomdConfig,
    DsDepthConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScDepthConfig,
    TrainConfig,
    from_dict,
    to_dict,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "ConfigError",
    "CostVolumeConfig",
    "DataConfig",
    "DomdConfig",
    "DsDepthConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ScDepthConfig",
    "TrainConfig",
    "from_dict",
    "to_dict",
]
