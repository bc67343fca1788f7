"""All readers of files, by name."""

from array_readers import ARRAYS
from folder_readers import FOLDERS
from text_readers import TEXT
from video_readers import VIDEOS

ALL = TEXT | ARRAYS | FOLDERS | VIDEOS
