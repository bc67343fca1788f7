"""The viewer page is self-contained, holds depth accurately, and reacts to the mouse in a browser."""

import base64
import json
import re
import zlib

import browser
import numpy as np
import pytest

from dd_jax.inference import viewer

HEIGHT, WIDTH = 60, 100
K = np.array([[80, 0, 49.5], [0, 80, 29.5], [0, 0, 1]], np.float32)


def scene(frame=0):
    """A slanted red road under a green wall; the wall comes nearer from frame to frame."""
    image = np.full((HEIGHT, WIDTH, 3), (30, 160, 60), np.uint8)
    image[HEIGHT // 2 :] = (170, 40, 40)
    wall = 10.0 - 1.5 * frame
    depth = np.full((HEIGHT, WIDTH), wall, np.float32)
    depth[HEIGHT // 2 :] = np.minimum(80 / np.arange(0.5, HEIGHT // 2), wall)[:, None]
    pose = np.eye(4)
    pose[2, 3] = 1.5 * frame
    return image, depth, pose


def page(name="a", count=3):
    scenes = [scene(place) for place in range(count)]
    frames = [viewer.encode_frame(f"{name}{place}", image, depth) for place, (image, depth, _) in enumerate(scenes)]
    return viewer.page("Drive <1>", frames, [pose for _, _, pose in scenes], K, (HEIGHT, WIDTH), "m", 10.0)


def parsed(text):
    return json.loads(re.search(r'<script id="scene" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def decoded(frame, height, width):
    """Depth as the page computes it."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(frame["depth"])), np.uint8).reshape(2, height, width)
    levels = np.cumsum(data[0].astype(int) * 256 + data[1], axis=1) % 65536
    return 1 / (frame["farthest"] + levels / 65535 * (frame["nearest"] - frame["farthest"]))


def test_depth_accuracy():
    content = parsed(page())
    assert (content["height"], content["width"]) == (HEIGHT, WIDTH)
    for place, frame in enumerate(content["frames"]):
        np.testing.assert_allclose(decoded(frame, HEIGHT, WIDTH), scene(place)[1], rtol=1e-3)
    assert content["range"] == pytest.approx([80 / 29.5, 10.0]) and content["unit"] == " m"


def test_large_frames_are_resized_with_intrinsics():
    frame = viewer.encode_frame("a", np.zeros((300, 960, 3), np.uint8), np.full((300, 960), 5.0, np.float32))
    large = np.array([[800, 0, 479.5], [0, 800, 149.5], [0, 0, 1]], np.float32)
    content = parsed(viewer.page("x", [frame], [np.eye(4)], large, (300, 960), "", 10.0))
    assert (content["height"], content["width"], content["fx"], content["cx"]) == (150, 480, 400, 239.5)
    np.testing.assert_allclose(decoded(content["frames"][0], 150, 480), 5, rtol=1e-5)


def test_page_is_self_contained_and_escapes_names():
    text = page(name="</script><script>alert(1)</script>")
    assert parsed(text)["frames"][0]["name"] == "</script><script>alert(1)</script>0"
    assert text.count("<script") == 2 and "<title>Drive &lt;1&gt;</title>" in text
    assert not re.findall(r"(?:src|href)\s*=\s*\"", text) and "http" not in text and "{{" not in text


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    if browser.find() is None:
        pytest.skip("needs a browser: install Chromium (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("viewer")
    (folder / "viewer.html").write_text(page())
    with browser.Page(folder / "viewer.html", folder / "profile") as opened:
        opened.wait("document.getElementById('view')?.dataset.drawn === '0'")
        yield opened


def differing(one, other):
    """Fraction of differing pixels."""
    return float((np.abs(one.astype(int) - other).max(axis=-1) > 8).mean())


def settled(shown):
    """The canvas right of the small image, after all drawing."""
    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))")
    left = int(shown.evaluate("picture.getBoundingClientRect().right"))
    bottom = int(shown.evaluate("view.getBoundingClientRect().bottom"))
    return shown.screenshot()[: bottom - 1, left + 2 :]


def test_browser_draws_points(shown):
    image = settled(shown)
    red = (image[..., 0] > 120) & (image[..., 1] < 90)
    green = (image[..., 1] > 120) & (image[..., 0] < 90)
    assert red.mean() > 0.02 and green.mean() > 0.02
    assert np.median(np.nonzero(green)[0]) < np.median(np.nonzero(red)[0])  # the wall is above the road
    assert shown.errors == [] and shown.evaluate("document.getElementById('name').value") == "a0  (1 of 3)"


def test_drag_rotates_and_double_click_resets(shown):
    before = settled(shown)
    shown.drag((450, 300), (320, 340))
    turned = settled(shown)
    assert differing(before, turned) > 0.05
    shown.drag((450, 300), (450, 300))
    assert differing(turned, settled(shown)) == 0
    shown.evaluate("view.dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))")
    assert differing(before, settled(shown)) == 0


def test_wheel_zooms(shown):
    def coloured(image):
        return float((image.max(axis=-1) > 100).mean())

    start = coloured(settled(shown))
    shown.wheel((450, 300), 400)
    assert coloured(settled(shown)) < 0.8 * start
    shown.evaluate("view.dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))")


def test_slider_changes_frame(shown):
    before = settled(shown)
    box = "slider.getBoundingClientRect()"
    left, right, top, bottom = (shown.evaluate(f"{box}.{side}") for side in ("left", "right", "top", "bottom"))
    middle = round((top + bottom) / 2)
    shown.drag((round(left) + 8, middle), (round(right) - 8, middle))
    shown.wait("view.dataset.drawn === '2'")
    assert shown.evaluate("document.getElementById('name').value") == "a2  (3 of 3)"
    assert differing(before, settled(shown)) > 0.05
    shown.key("ArrowLeft")
    shown.wait("view.dataset.drawn === '1'")
    shown.evaluate("show(0)")
    shown.wait("view.dataset.drawn === '0'")
    assert differing(before, settled(shown)) == 0


def test_far_points_can_be_hidden(shown):
    green = int((settled(shown)[..., 1] > 120).sum())
    shown.evaluate("far.value = 0.7; far.dispatchEvent(new Event('input'))")
    assert (settled(shown)[..., 1] > 120).sum() < 0.2 * green
    shown.evaluate("far.value = 1; far.dispatchEvent(new Event('input'))")
    assert shown.errors == []


def test_playing_loops(shown):
    shown.evaluate("play.click()")
    shown.wait("view.dataset.drawn === '2'")
    shown.wait("view.dataset.drawn === '0'")
    shown.evaluate("play.click()")
    assert shown.evaluate("play.textContent") == "Play" and shown.errors == []
