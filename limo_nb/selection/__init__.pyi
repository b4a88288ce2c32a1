"""What `limo_nb.selection` offers; the names are loaded when they are asked for."""

from .choice import cells_in_effect as cells_in_effect
from .choice import embed as embed
from .choice import select as select
from .rates import SolveCount as SolveCount
from .rates import jeffreys as jeffreys
from .rates import keep_by_rate as keep_by_rate
from .rates import mean_interval as mean_interval
from .rates import outcomes as outcomes
from .rates import solve_counts as solve_counts
from .solving import Attempt as Attempt
from .solving import fair_counts as fair_counts
from .solving import grade_attempts as grade_attempts
from .solving import solve as solve
