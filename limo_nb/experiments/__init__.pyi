"""What `limo_nb.experiments` offers; the names are loaded when they are asked for."""

from .ablations import BANDS as BANDS
from .ablations import ablation_sets as ablation_sets
from .ablations import run_ablations as run_ablations
from .differences import paired as paired
from .differences import results_of as results_of
from .headline import at_equal_steps as at_equal_steps
from .headline import evaluate_all as evaluate_all
from .headline import in_both_precisions as in_both_precisions
from .headline import steps_of as steps_of
from .headline import train as train
from .headline import trained as trained
from .variants import HEADLINE as HEADLINE
from .variants import table as table
from .variants import training_sets as training_sets
