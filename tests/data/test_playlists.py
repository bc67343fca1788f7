"""A file that names other files is not followed."""

import made_videos
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import video_reader

CLIP = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("content", [CLIP, "ffconcat version 1.0\nfile '{}'\n"])
def test_playlist_of_a_video_is_refused(content, tmp_path):
    video = made_videos.write(tmp_path / "a.ts", made_videos.views(4))
    assert video_reader.survey(video, slice(None)).numbers == range(4)
    for name in (video.name, str(video), f"file://{video}", "http://localhost:1/a.ts"):
        path = tmp_path / "drive.mp4"
        path.write_text(content.format(name))
        with pytest.raises(ConfigError, match=r"drive\.mp4"):
            video_reader.opened(path)
