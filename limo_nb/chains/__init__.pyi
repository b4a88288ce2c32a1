"""What `limo_nb.chains` offers; the names are loaded when they are asked for."""

from .choice import best_per_question as best_per_question
from .choice import best_rows as best_rows
from .choice import levels as levels
from .choice import levels_and_control as levels_and_control
from .choice import matched_levels as matched_levels
from .choice import score_rows as score_rows
from .collection import Chain as Chain
from .collection import collect as collect
from .collection import from_teachers as from_teachers
from .collection import teachers_table as teachers_table
from .formats import convert as convert
from .formats import llama_factory_entry as llama_factory_entry
from .formats import read_rows as read_rows
from .formats import write_rows as write_rows
from .judges import LikelihoodJudge as LikelihoodJudge
from .judges import ModelJudge as ModelJudge
from .judges import pairwise_accuracy as pairwise_accuracy
from .judges import pairwise_finding as pairwise_finding
from .judges import rank_agreement as rank_agreement
from .judges import rescored as rescored
from .measures import measure_chain as measure_chain
from .scoring import DIMENSIONS as DIMENSIONS
from .scoring import Scale as Scale
from .scoring import count_words as count_words
from .scoring import score as score
from .scoring import weights as weights
