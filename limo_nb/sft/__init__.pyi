"""What `limo_nb.sft` offers; the names are loaded when they are asked for."""

from .encoding import Encoded as Encoded
from .encoding import closing_ids as closing_ids
from .encoding import encode as encode
from .launch import Task as Task
from .launch import fine_tune as fine_tune
from .launch import fine_tune_here as fine_tune_here
from .launch import fine_tune_many as fine_tune_many
from .launch import prepare as prepare
from .planner import Plan as Plan
from .planner import Setup as Setup
from .planner import alternatives as alternatives
from .planner import setup_of as setup_of
from .train import choices as choices
