"""What `limo_nb.lab` offers; the names are loaded when they are asked for."""

from .facts import single_facts as single_facts
from .items import MANY_STEPS as MANY_STEPS
from .items import POOL_STEPS as POOL_STEPS
from .items import STEPS_TESTED as STEPS_TESTED
from .items import benchmark_problems as benchmark_problems
from .items import benchmarks as benchmarks
from .items import ladder as ladder
from .items import pool as pool
from .items import worked_prompt as worked_prompt
from .mistakes import MISTAKES as MISTAKES
from .mistakes import first_mistake as first_mistake
from .reading import problems_read as problems_read
from .recipe import Phase as Phase
from .recipe import Recipe as Recipe
from .recipe import doses as doses
from .recipe import recipes as recipes
from .shipped import MODELS as MODELS
from .shipped import digest as digest
from .shipped import model_path as model_path
from .shipped import verify as verify
from .tokenizer import make_tokenizer as make_tokenizer
from .world import FAMILIES as FAMILIES
from .world import IN_DOMAIN as IN_DOMAIN
from .world import MAX_STEPS as MAX_STEPS
from .world import LabProblem as LabProblem
