"""What `limo_nb.book` offers; the names are loaded when they are asked for."""

# What chapters show
from . import chain_viewer as chain_viewer
from . import exercise_cases as exercise_cases
from . import exercises as exercises
from . import funnel_report as funnel_report
from . import plots as plots
from . import sft_report as sft_report

# What runs and renders them
from .contents import Chapter as Chapter
from .contents import chapters as chapters
from .contents import find_root as find_root
from .render import RenderFailed as RenderFailed
from .render import build_site as build_site
from .run import ChapterFailed as ChapterFailed
from .run import ChapterRun as ChapterRun
from .run import run_chapters as run_chapters
from .templates import macros as macros
