"""Models exported in the published format are imported unchanged; files that do not fit raise."""

import argparse
import dataclasses
import functools
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from dd_jax.checkpoints import hub, published, saved, torch_names
from dd_jax.config import ConfigError
from dd_jax.networks import model as networks

ROOT = Path(__file__).parents[2]
OFF, ALONE = {"enabled": False}, {"student": False}
PUBLISHED_POSES = {"rotation_scale": 0.01, "translation_scale": 0.01}
MODELS = {
    "dynamic_depth": {},
    "deeper": {"model": {"student_layers": 50}},
    "flow": {"model": {"flow": True}},
    "monodepth2": {"model": ALONE, "domd": OFF},
    "sc_depth_v3": {"model": ALONE | {"min_depth": 1 / 10.01}, "domd": OFF, "sc": {"enabled": True}, "loss": {"smoothness": 0.0}},
    "ds_depth": {"domd": OFF, "ds": {"enabled": True}},
}


def config_of(name):
    config = tiny.config(**{"optim": {"freeze_step": -1}} | MODELS[name])
    config.name, config.data.priors = name, "files"
    return config


@functools.cache
def model_of(name):
    restored = tiny.restored(config_of(name))
    if restored.config.sc.enabled:  # the published network has no second pose
        out = restored.state.params["pose"]["out"]
        out["kernel"], out["bias"] = out["kernel"].at[..., 6:].set(0), out["bias"].at[6:].set(0)
    return restored


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One exported folder per model."""
    folders = {name: tmp_path_factory.mktemp("exported") / name for name in MODELS}
    for name, folder in folders.items():
        published.export(folder, model_of(name))
    return folders


def assert_same_arrays(a, b):
    for tree in ("params", "batch_stats", "depth_range"):
        one, other = getattr(a.state, tree), getattr(b.state, tree)
        assert jax.tree.structure(one) == jax.tree.structure(other)
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", MODELS)
def test_export_import_round_trip(name, folders, tmp_path):
    imported = published.read([folders[name]], config_of(name))
    original = dataclasses.replace(model_of(name))
    if name in ("monodepth2", "sc_depth_v3"):  # without depth bins
        original.state = original.state.replace(depth_range=imported.restored.state.depth_range)
    assert imported.remarks == []
    assert_same_arrays(imported.restored, original)
    again = published.export(tmp_path, imported.restored)
    assert {path.name for path in again} == {path.name for path in folders[name].iterdir()}
    for path in again:
        first, second = load_file(folders[name] / path.name), load_file(path)
        assert sorted(first) == sorted(second)
        for key, value in first.items():
            np.testing.assert_array_equal(value, second[key], err_msg=key)


def test_import_remembers_frame_step_of_config(folders):
    config = config_of("monodepth2")
    config.data.frame_step = 3
    assert published.read([folders["monodepth2"]], config).restored.config.data.frame_step == 3


def test_published_file_and_entry_names(folders):
    def names(name):
        return {path.stem for path in folders[name].iterdir()}

    six = {"encoder", "depth", "mono_encoder", "mono_depth", "pose_encoder", "pose"}
    assert names("dynamic_depth") == names("deeper") == six
    assert names("ds_depth") == names("flow") == six | {"flow"}
    assert names("monodepth2") == {"encoder", "depth", "pose_encoder", "pose"}
    assert names("sc_depth_v3") == {"sc_depth"}
    keys = set(load_file(folders["sc_depth_v3"] / "sc_depth.safetensors"))
    for key in (
        "depth_net.encoder.encoder.layer1.0.conv1.weight",
        "depth_net.decoder.upconvs0.0.conv.conv.weight",
        "depth_net.decoder.upconvs1.4.conv.conv.bias",
        "depth_net.decoder.dispconvs.3.conv.weight",
        "pose_net.encoder.encoder.bn1.running_var",
        "pose_net.decoder.conv_squeeze.weight",
        "pose_net.decoder.convs_pose.2.bias",
    ):
        assert key in keys
    encoder = load_file(folders["dynamic_depth"] / "encoder.safetensors")
    assert (encoder["height"], encoder["width"]) == (tiny.HEIGHT, tiny.WIDTH)
    np.testing.assert_allclose([encoder["min_depth_bin"], encoder["max_depth_bin"]], [0.4, 2.4])
    mono = load_file(folders["monodepth2"] / "encoder.safetensors")
    assert (mono["height"], mono["width"], mono["use_stereo"]) == (tiny.HEIGHT, tiny.WIDTH, False)


def test_sizes_layers_and_bins_of_the_files_are_used(folders):
    config = tiny.config(data={"height": 32, "width": 32}, model={"width": 16, "rotation_scale": 0.1}, cost_volume={"bins": 4})
    imported = published.read([folders["deeper"]], config)
    assert_same_arrays(imported.restored, model_of("deeper"))
    found = imported.restored.config
    assert (found.data.height, found.data.width, found.cost_volume.bins) == (tiny.HEIGHT, tiny.WIDTH, 8)
    assert (found.model.width, found.model.student_layers, found.model.rotation_scale) == (8, 50, 0.01)
    assert imported.remarks == [
        "data.height is 64 in the files and 32 in the config: using 64",
        "data.width is 96 in the files and 32 in the config: using 96",
        "model.width is 8 in the files and 16 in the config: using 8",
        "model.student_layers is 50 in the files and 18 in the config: using 50",
        "cost_volume.bins is 8 in the files and 4 in the config: using 8",
        "model.rotation_scale is 0.01 in the files and 0.1 in the config: using 0.01",
    ]
    assert config.data.height == 32  # the caller's config is unchanged


def test_pose_scale_is_folded_into_exported_weights(tmp_path):
    restored = tiny.restored(tiny.config(model={"rotation_scale": 0.1, "translation_scale": 0.02}))
    published.export(tmp_path, restored)
    found = published.read([tmp_path], restored.config).restored
    before, after = restored.state.params["pose"]["out"], found.state.params["pose"]["out"]
    for name in ("kernel", "bias"):
        for part, factor in ((slice(0, 3), 10), (slice(3, 6), 2), (slice(6, 9), 10), (slice(9, 12), 2)):
            np.testing.assert_allclose(after[name][..., part], factor * before[name][..., part], rtol=1e-6)
    assert found.config.model.rotation_scale == found.config.model.translation_scale == 0.01


def test_single_frame_import_from_two_frame_checkpoint(folders):
    imported = published.read([folders["dynamic_depth"]], config_of("monodepth2"))
    assert imported.remarks == ["not imported, since monodepth2 does not have them as configured: depth, encoder"]
    state = model_of("dynamic_depth").state
    for name in ("teacher", "pose"):
        jax.tree.map(np.testing.assert_array_equal, imported.restored.state.params[name], state.params[name])


def changed(folder, to, name, edit):
    """A copy of an exported folder in which one file is edited."""
    to.mkdir()
    for path in folder.iterdir():
        arrays = load_file(path)
        if path.stem == name:
            edit(arrays)
        save_file(arrays, to / path.name)
    return to


def put(**values):
    return lambda arrays: arrays.update({key.replace("__", "."): np.asarray(value) for key, value in values.items()})


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("pose", lambda arrays: arrays.pop("net.1.bias"), r"does not fit the model: missing: pose: net\.1\.bias$"),
        ("pose", put(net__1__bias=np.ones(5, np.float32)), r"wrong shape: pose: net\.1\.bias is \(5,\) in our layout, "),
        ("pose", put(net__1__bias=np.ones(32, np.int64)), r"not finite floats: pose: net\.1\.bias \(int64\)$"),
        ("pose", put(net__1__bias=np.full(32, np.nan, np.float32)), r"not finite floats: pose: net\.1\.bias \(float32\)$"),
        ("depth", put(extra=np.ones(1, np.float32)), r"unexpected: depth: extra$"),
        ("encoder", put(max_depth_bin=np.float32([0.1])), r"min_depth_bin=0\.4 and max_depth_bin=0\.1 are not a depth range"),
        ("encoder", put(max_depth_bin=np.ones(3)), r"max_depth_bin is not a finite number but float64\[3\]: the file is dam"),
        ("encoder", put(height=np.float32(np.nan)), r"height is not a finite number but float32\[\]: the file is damaged"),
        ("encoder", put(height=np.float32(64.9)), r"height is 64\.9, not a number of pixels: the file is damaged"),
        ("encoder", put(height=np.int64(-64)), r"height is -64, not a number of pixels"),
        ("encoder", put(height=np.int64(10**18)), r"height is 1e\+18, not a number of pixels"),
        ("mono_encoder", put(height=np.int64(128)), r"height is 64 in encoder, 128 in mono_encoder: the files are of different"),
        ("encoder", put(min_depth_bin=np.float64(1e-300)), r"min_depth_bin=1e-300 and max_depth_bin=2\.4 are not a depth range"),
        ("encoder", put(max_depth_bin=np.float64(1e300)), r"max_depth_bin=1e\+300 are not a depth range"),
        ("encoder", put(min_depth_bin=1.0, max_depth_bin=1 + 1e-12), r"_bin=1 and max_depth_bin=1 are not a depth range"),
        ("pose", put(net__1__bias=np.full(32, 1e300)), r"not finite floats: pose: net\.1\.bias \(float64\)$"),
        ("encoder", put(reduce_conv__0__weight=np.ones((8, 8, 3, 3), np.float32)), r"--config\.cost_volume\.bins=0 must"),
        ("mono_encoder", put(encoder__conv1__weight=np.float32(1)), r"wrong shape: mono_encoder: encoder\.conv1\.weight is \(\)"),
        ("encoder", put(height=np.int64([70])), r"--config\.data\.height=70 must be a multiple of 32"),
        ("mono_encoder", put(encoder__layer4__0__conv3__weight=np.ones(1)), r"mono_encoder has another architecture"),
    ],
)
def test_files_that_do_not_fit_raise(name, edit, message, folders, tmp_path):
    with pytest.raises(ConfigError, match=message) as error:
        published.read([changed(folders["dynamic_depth"], tmp_path / "x", name, edit)], config_of("dynamic_depth"))
    assert "\n" not in str(error.value)


def test_missing_files_raise(folders, tmp_path):
    files = [folders["dynamic_depth"] / f"{name}.safetensors" for name in ("encoder", "depth", "pose")]
    with pytest.raises(ConfigError, match=r"no file for mono_encoder, mono_depth, pose_encoder; .* has encoder, .*: copy"):
        published.read(files, config_of("dynamic_depth"))
    with pytest.raises(ConfigError, match=r"no file for encoder, depth, mono_encoder"):
        published.read([tmp_path], config_of("dynamic_depth"))


def test_files_of_another_method_raise(folders, tmp_path):
    def message(places, name):
        with pytest.raises(ConfigError) as error:
            published.read(places, config_of(name))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "of a single-frame model" in message([folders["monodepth2"]], "dynamic_depth")
    assert "unexpected: encoder: reduce.0.bias, encoder: reduce.0.weight" in message([folders["ds_depth"]], "dynamic_depth")
    assert "no file for flow; ds_depth has encoder, " in message([folders["dynamic_depth"]], "ds_depth")
    assert "is one file, 4 were found (depth.safetensors, " in message([folders["monodepth2"]], "sc_depth_v3")
    assert "not an entry of an SC-Depth checkpoint" in message([folders["monodepth2"] / "pose.safetensors"], "sc_depth_v3")
    assert "sc_depth.safetensors is not a network" in message([folders["sc_depth_v3"] / "sc_depth.safetensors"], "monodepth2")
    assert "nowhere does not exist" in message([tmp_path / "nowhere"], "monodepth2")
    both = [folders[name] / "pose.safetensors" for name in ("monodepth2", "ds_depth")]
    assert "are both named pose: name the files one by one" in message(both, "monodepth2")


def test_damaged_sc_depth_raises(folders, tmp_path):
    def spoil(arrays):
        arrays["pose_net.decoder.convs_pose.2.bias"] = np.array(1, np.float32)

    folder = changed(folders["sc_depth_v3"], tmp_path / "x", "sc_depth", spoil)
    with pytest.raises(ConfigError, match=r"wrong shape: pose: net\.3\.bias is \(\)"):
        published.read([folder], config_of("sc_depth_v3"))


def test_files_without_sizes_and_bins(folders, tmp_path):
    def forget(arrays):
        for key in ("height", "width", "min_depth_bin", "max_depth_bin"):
            del arrays[key]

    imported = published.read([changed(folders["dynamic_depth"], tmp_path / "x", "encoder", forget)], config_of("dynamic_depth"))
    assert imported.remarks == ["the files have no range of the depth bins: using the config's initial 0.4 to 2.4"]
    stereo = changed(folders["monodepth2"], tmp_path / "y", "encoder", put(use_stereo=np.array([True, False])))
    (remark,) = published.read([stereo], config_of("monodepth2")).remarks
    assert remark.startswith("trained on stereo pairs: depth times 5.4 is in metres")


def test_import_from_pickles(folders, tmp_path):
    """With Python numbers among the arrays, and Lightning's wrapper."""
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth files: pip install -e '.[prepare]'")
    for path in folders["dynamic_depth"].iterdir():
        state = {key: torch.from_numpy(value) if value.ndim else value.item() for key, value in load_file(path).items()}
        torch.save(state, tmp_path / f"{path.stem}.pth")
    torch.save({"state": {}}, tmp_path / "adam.pth")  # the optimiser's, not imported
    assert_same_arrays(published.read([tmp_path], config_of("dynamic_depth")).restored, model_of("dynamic_depth"))
    state = {key: torch.from_numpy(value) for key, value in load_file(folders["sc_depth_v3"] / "sc_depth.safetensors").items()}
    content = {"epoch": 99, "state_dict": state, "hyper_parameters": {"hparams": argparse.Namespace(lr=1e-4)}}
    torch.save(content, tmp_path / "epoch=99.ckpt")
    imported = published.read([tmp_path / "epoch=99.ckpt"], config_of("sc_depth_v3"))
    jax.tree.map(np.testing.assert_array_equal, imported.restored.state.params, model_of("sc_depth_v3").state.params)


def test_expanded_array_raises_before_a_copy(folders):
    state_dicts = {"pose": load_file(folders["dynamic_depth"] / "pose.safetensors")}
    state_dicts["pose"]["net.1.bias"] = np.broadcast_to(np.float32(1), (10**12,))  # four terabytes
    shapes = jax.eval_shape(lambda: networks.initialise(config_of("dynamic_depth"), 0))
    with pytest.raises(ConfigError, match=r"wrong shape: pose: net\.1\.bias is \(1000000000000,\) in our layout"):
        torch_names.from_torch(state_dicts, shapes)


def test_hub_checkpoint_and_digest(folders, monkeypatch):
    """The digest of several files equals that of a shell command."""
    fetched = []
    monkeypatch.setattr(hub, "fetch", lambda *arguments: (fetched.append(arguments), folders["monodepth2"])[1])
    command = "sha256sum depth.safetensors encoder.safetensors pose.safetensors pose_encoder.safetensors | sha256sum"
    run = subprocess.run(command, shell=True, cwd=folders["monodepth2"], capture_output=True, text=True, check=True)
    found = run.stdout.split()[0]
    for place in ("hf://owner/name@v1", f"hf://owner/name@v1#{found[:8]}", f"{folders['monodepth2']}#{found}"):
        assert published.read([place], config_of("monodepth2")).remarks == []
    assert [address for address, *_ in fetched] == ["hf://owner/name@v1"] * 2
    _, needed, wanted = fetched[0]
    assert needed == () and "mono_encoder.pth" in wanted and "encoder.safetensors" in wanted and "adam.pth" not in wanted
    with pytest.raises(ConfigError, match=f"the SHA-256 of .*monodepth2 is {found} and should begin with 01234567:"):
        published.read(["hf://owner/name#01234567"], config_of("monodepth2"))
    with pytest.raises(ConfigError, match="hf://owner/name#v1: after # give the first 8 or more digits of a SHA-256"):
        published.read(["hf://owner/name#v1"], config_of("monodepth2"))
    path = folders["sc_depth_v3"] / "sc_depth.safetensors"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert published.read([f"{path}#{sha256}"], config_of("sc_depth_v3")).remarks == []


@pytest.fixture(scope="module")
def script():
    """scripts/import_torch.py as a module."""
    spec = importlib.util.spec_from_file_location("import_torch_script", ROOT / "scripts/import_torch.py")
    module = importlib.util.module_from_spec(spec)
    before = sys.path.copy()
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_script_imports_and_exports(script, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    source, out = folders["dynamic_depth"], tmp_path / "model"
    script.main([str(source), "--config=configs/dynamic_depth.py:kitti", f"--out={out}"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "data.height is 64 in the files and 192 in the config: using 64"
    assert printed[-1] == f"{out}: dynamic_depth, to be read by dd_jax.load"
    restored = saved.restore(out)
    assert_same_arrays(restored, model_of("dynamic_depth"))
    assert "encoder.safetensors (SHA-256 " in restored.versions["imported"]
    assert "| imported from | " in (out / saved.CARD).read_text()
    script.main([f"--export={out}", f"--out={tmp_path / 'back'}"])
    assert set(capsys.readouterr().out.split()) == {str(tmp_path / "back" / path.name) for path in source.iterdir()}
    for path in source.iterdir():
        assert path.read_bytes() == (tmp_path / "back" / path.name).read_bytes()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_failed_import_keeps_existing_files(script, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = "--config=configs/dynamic_depth.py:kitti"
    script.main([str(folders["dynamic_depth"]), config, f"--out={tmp_path / 'out'}"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    broken = changed(folders["dynamic_depth"], tmp_path / "x", "pose", lambda arrays: arrays.pop("net.0.bias"))
    (broken / "depth.safetensors").write_bytes((broken / "depth.safetensors").read_bytes()[:1000])
    for arguments, message in (
        ([str(broken), config], "depth.safetensors is missing, cut off or damaged"),
        ([str(folders["dynamic_depth"])], "the method is not given: set --config=configs/NAME.py:VARIANT"),
        ([], "name the files of a checkpoint to import, or --export=CHECKPOINT"),
        (["here", "--export=there"], "not both"),
        (["--export=there", config], "--config=configs/dynamic_depth.py:kitti is not a flag of --export"),
        ([f"--export={tmp_path / 'there'}"], "there is not a folder"),
    ):
        with pytest.raises(SystemExit) as error:
            script.main([*arguments, f"--out={tmp_path / 'out'}"])
        assert message in str(error.value) and "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ConfigError, match=r"config\.json cannot be written \(File exists\): name another folder"):
        published.export(tmp_path / "out/config.json", model_of("monodepth2"))


@pytest.mark.filterwarnings("ignore")  # the package uses PyTorch and torchvision as of 2021
def test_published_code_loads_exported_files(tmp_path):
    """The entries are exactly those of ManyDepth's classes; the teacher's output is the same."""
    pytest.importorskip("manydepth", reason="pip install -e '.[peer]'")
    torch, published = pytest.importorskip("torch"), importlib.import_module("manydepth.networks")
    restored = tiny.restored(tiny.config(model={"width": 64, "student_layers": 50}, domd=OFF))
    published.export(tmp_path, restored)
    loaded = {path.stem: load_file(path) for path in tmp_path.iterdir()}
    encoder = loaded["encoder"]
    sizes = {f"input_{name}": int(encoder.pop(name)) for name in ("height", "width")}
    bins = {name: float(encoder.pop(name)) for name in ("min_depth_bin", "max_depth_bin")}
    nets = {
        "encoder": published.ResnetEncoderMatching(50, False, **sizes, **bins, num_depth_bins=8),
        "mono_encoder": published.ResnetEncoder(18, False),
        "pose_encoder": published.ResnetEncoder(18, False, num_input_images=2),
    }
    nets["depth"], nets["mono_depth"] = (published.DepthDecoder(nets[name].num_ch_enc) for name in ("encoder", "mono_encoder"))
    nets["pose"] = published.PoseDecoder(nets["pose_encoder"].num_ch_enc, num_input_features=1, num_frames_to_predict_for=2)
    fresh = {name: value.clone() for name, value in nets["encoder"].state_dict().items() if name.startswith("backprojector")}
    for name, net in nets.items():
        net.load_state_dict({key: torch.from_numpy(value) for key, value in loaded[name].items()}, strict=True)
        net.eval()
    for name, value in fresh.items():
        np.testing.assert_array_equal(nets["encoder"].state_dict()[name], value)
    image = tiny.batch(1).images[:, 1].astype(np.float32) / 255
    with torch.no_grad():
        theirs = nets["mono_depth"](nets["mono_encoder"](torch.from_numpy(np.moveaxis(image, -1, 1).copy())))[("disp", 0)]
    state = restored.state
    model = networks.merge(state.params, state.batch_stats, restored.config, None, train=False)
    ours = jax.jit(lambda image: model.teacher(image)[0])(image)
    np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-5)
