"""What `limo_nb.problems` offers; the names are loaded when they are asked for."""

from .cleaning import DROPPED as DROPPED
from .cleaning import WITHOUT_DATA as WITHOUT_DATA
from .cleaning import Sieved as Sieved
from .cleaning import decontaminate as decontaminate
from .cleaning import drop_duplicates as drop_duplicates
from .cleaning import drop_unanswered as drop_unanswered
from .cleaning import nothing as nothing
from .cleaning import sieve as sieve
from .contamination import Exam as Exam
from .sources import COLUMNS as COLUMNS
from .sources import NAMES as NAMES
from .sources import data_root as data_root
from .sources import level_of as level_of
from .sources import load_pool as load_pool
from .sources import plain_answer as plain_answer
from .sources import read_problems as read_problems
from .sources import read_source as read_source
from .sources import read_texts as read_texts
from .sources import real_pool as real_pool
from .text import FORMS as FORMS
from .text import jaccard as jaccard
from .text import ngrams as ngrams
from .text import normalise as normalise
from .text import words as words
