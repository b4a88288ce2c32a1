"""What `limo_nb.evaluation` offers; the names are loaded when they are asked for."""

from .attempts import evaluate as evaluate
from .attempts import grade_answers as grade_answers
from .attempts import recorded_agreement as recorded_agreement
from .benchmarks import benchmark_items as benchmark_items
from .benchmarks import known as known
from .benchmarks import overview as overview
from .benchmarks import real_benchmarks as real_benchmarks
from .benchmarks import to_avoid as to_avoid
from .estimates import VERDICTS as VERDICTS
from .estimates import Estimate as Estimate
from .estimates import accuracy as accuracy
from .estimates import compared as compared
from .estimates import comparison as comparison
from .estimates import difference as difference
from .estimates import majority_vote as majority_vote
from .estimates import pass_at_k as pass_at_k
from .estimates import relation as relation
from .estimates import table as table
from .estimates import told as told
from .estimates import wilson as wilson
from .model_judge import with_judge as with_judge
from .protocols import Protocol as Protocol
from .protocols import protocol as protocol
from .scoring import Job as Job
from .scoring import compare as compare
from .scoring import score as score
