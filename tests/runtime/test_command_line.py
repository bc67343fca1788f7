import subprocess
import sys
from pathlib import Path

import pytest

from dd_jax.config import ConfigError
from dd_jax.runtime import command_line

ROOT = Path(__file__).parents[2]
DEMO = "--config=configs/dynamic_depth.py:demo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEMO, "--config.loss.sim=1"], r"--config\.loss\.sim is not a field of the config; did you mean --config\.loss\.ssim"),
        ([DEMO, "--config.nothing.like.it=1"], r"--config\.nothing\.like\.it is not a field"),
        ([DEMO, "--config.data=here"], r"--config\.data is not a field"),
        ([DEMO, "--config.optim.steps=many"], r"--config\.optim\.steps=many: .*int"),
        ([DEMO, "--config.domd.enabled=maybe"], r"--config\.domd\.enabled=maybe: .*boolean"),
        (["--config=configs/dynamic_depth.py:none"], r"has no variant 'none'"),
        (["--config=configs/none.py"], r"configs/none\.py"),
        (["--config=configs/none.py", "--config.data.height=64"], r"configs/none\.py"),
        ([DEMO, "--confg=1"], r"confg"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_invalid_flags_raise_one_sentence(arguments, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=message) as error:
        command_line.config_of(arguments)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_scripts_without_config_name_their_own_flags():
    told = "set --config.data.allow_pickle=True, --config.data.root=X or --config.data.split_dir, not --config.eval.crop='a'"
    with (
        pytest.raises(ConfigError, match="set --allow_pickle, --data_root=X or --split_dir, not --crop='a'"),
        command_line.own_flags(),
    ):
        raise ConfigError(told)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_flags_set_fields(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = command_line.config_of([DEMO, "--config.data.height=96", "--config.domd.enabled=False"])
    assert (config.data.height, config.domd.enabled) == (96, False)


def test_train_script_prints_only_the_message():
    given = [DEMO, "--workdir=unused", "--config.loss.sim=1"]
    result = subprocess.run([sys.executable, "scripts/train.py", *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: --config.loss.sim") and result.stderr.count("\n") == 1
    assert not (ROOT / "unused").exists()


def test_train_script_names_missing_flags():
    for given, message in (
        ([], "error: --config and --workdir are required: see --help\n"),
        ([DEMO], "error: --workdir is required: see --help\n"),
    ):
        command = [sys.executable, "scripts/train.py", *given]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (1, message)


def test_parser_errors_are_one_sentence(capsys):
    parser = command_line.Parser("Description.")
    parser.add_argument("--count", type=int)
    for given in (["--count=many"], ["--cou=1"]):
        with pytest.raises(SystemExit, match=r"^error: .*--cou.*; --help explains the flags$"):
            parser.parse_args(given)
    assert capsys.readouterr().err == ""


def test_file_system_and_config_errors_are_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    message = r"^error: .*/file/folder cannot be read or written \(Not a directory\): choose another"
    with pytest.raises(SystemExit, match=message), command_line.job():
        (tmp_path / "file/folder").mkdir()
    with pytest.raises(SystemExit, match=r"^error: what, where, what to do$"), command_line.job():
        raise ConfigError("what, where, what to do")
