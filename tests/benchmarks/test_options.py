import json

import numpy as np
import pytest
import tiny

from dd_jax.benchmarks import options
from dd_jax.benchmarks.programs import Program
from dd_jax.config import ConfigError


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("loss.pyramid", "--against=loss.pyramid must be SECTION.FIELD=VALUE"),
        ("loss.pyramids=True", r"loss\.pyramids is not a field of the config; did you mean --config\.loss\.pyramid"),
        ("loss.pyramid=many", "loss.pyramid='many', which must be of type bool"),
        ("loss.scales=9", r"loss\.scales"),
    ],
)
def test_invalid_variant_raises(variant, message):
    with pytest.raises(ConfigError, match=message):
        options.benchmark(tiny.config(), ["loss.scales=1", variant], 1, 1)


def test_variants_run_in_alternation_with_the_config_as_it_is(monkeypatch, capsys):
    order = []

    def training_step(config, devices):
        run = lambda: order.append((config.loss.scales, config.loss.pyramid, config.data.batch_size))  # noqa: E731
        return Program(run, None, 2.0)

    monkeypatch.setattr(options.programs, "training_step", training_step)
    result = options.benchmark(tiny.config(), ["loss.scales=1", "loss.scales=2,loss.pyramid=true"], 3, 2)
    assert order == [(4, False, 3), (1, False, 3), (2, True, 3)] * 3
    assert list(result) == ["as configured", "loss.scales=1", "loss.scales=2,loss.pyramid=true"]
    assert result["as configured"]["ratio"] == 1 and result["loss.scales=1"]["compile_seconds"] == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result


@pytest.mark.slow
def test_frozen_step_is_faster():
    config = tiny.config(data={"batch_size": 2})
    result = options.benchmark(config, ["optim.freeze_step=0,train.init_from=unused"], 2, 5)
    frozen = result["optim.freeze_step=0,train.init_from=unused"]
    assert frozen["ratio"] < 0.9 and np.isfinite(frozen["step_seconds"])
