"""What `limo_nb.book` offers; the names are loaded when they are asked for."""

from .exercises import check as check
from .render import RenderFailed as RenderFailed
from .run import ChapterFailed as ChapterFailed
from .run import run_chapters as run_chapters
