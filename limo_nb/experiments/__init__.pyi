"""What `limo_nb.experiments` offers; the names are loaded when they are asked for."""

from .ablations import ablation_sets as ablation_sets
from .ablations import run_ablations as run_ablations
from .arms import ARMS as ARMS
from .arms import CONTRASTS as CONTRASTS
from .asking import prompts as prompts
from .budgets import at_equal_steps as at_equal_steps
from .budgets import steps_of as steps_of
from .decoding import run_decodings as run_decodings
from .differences import paired as paired
from .doses import run_doses as run_doses
from .elicitation import run_elicitation as run_elicitation
from .headline import evaluate_all as evaluate_all
from .headline import in_both_precisions as in_both_precisions
from .headline import train as train
from .headline import trained as trained
from .processes import in_processes as in_processes
from .sensitivity import run_conditions as run_conditions
from .study import groups_of as groups_of
from .study import run_group as run_group
from .training_runs import TrainingRun as TrainingRun
from .training_runs import TrainingSpec as TrainingSpec
from .training_runs import carry_out as carry_out
from .training_runs import results_of as results_of
from .variants import HEADLINE as HEADLINE
from .variants import Variant as Variant
from .variants import training_sets as training_sets
