"""What `limo_nb.problems` offers; the names are loaded when they are asked for."""

from .cleaning import Cause as Cause
from .cleaning import Filtered as Filtered
from .cleaning import clean_pool as clean_pool
from .cleaning import decontaminate as decontaminate
from .cleaning import drop_duplicates as drop_duplicates
from .cleaning import drop_unanswered as drop_unanswered
from .nearest import Resemblance as Resemblance
from .nearest import nearest_items as nearest_items
from .reading import level_of as level_of
from .reading import plain_answer as plain_answer
from .reading import read_problems as read_problems
from .reading import read_texts as read_texts
from .schema import COLUMNS as COLUMNS
from .schema import DROPPED as DROPPED
from .schema import Problem as Problem
from .sources import WITHOUT_DATA as WITHOUT_DATA
from .sources import data_root as data_root
from .sources import load_pool as load_pool
from .sources import read_source as read_source
from .sources import real_pool as real_pool
from .text import jaccard as jaccard
from .text import ngrams as ngrams
from .text import normalise as normalise
from .text import wording as wording
from .text import words as words
