"""What `limo_nb` offers by itself: the rooms, and the functions that most people want."""

from . import book as book
from . import chains as chains
from . import cli as cli
from . import core as core
from . import evaluation as evaluation
from . import evidence as evidence
from . import experiments as experiments
from . import grading as grading
from . import inference as inference
from . import lab as lab
from . import problems as problems
from . import selection as selection
from . import sft as sft
from .chains import convert as convert
from .chains import score as score
from .core import Run as Run
from .core import Sampling as Sampling
from .core import load_profile as load_profile
from .evaluation import compare as compare
from .evaluation import evaluate as evaluate
from .grading import Verdict as Verdict
from .grading import grade as grade
from .grading import grade_many as grade_many
from .inference import open_engine as open_engine
from .inference import sample as sample
from .problems import decontaminate as decontaminate
from .problems import drop_duplicates as drop_duplicates
from .problems import load_pool as load_pool
from .selection import select as select
from .sft import fine_tune as fine_tune
from .sft import plan as plan

__version__: str
