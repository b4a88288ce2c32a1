"""What `limo_nb.grading` offers; the names are loaded when they are asked for."""

from .canonical import clean as clean
from .extraction import final_answer as final_answer
from .gym import Gym as Gym
from .sandbox import Limits as Limits
from .verdicts import Verdict as Verdict
from .verdicts import agreement as agreement
from .verdicts import grade as grade
from .verdicts import grade_many as grade_many
from .verifiers import BY_REFERENCE as BY_REFERENCE
from .verifiers import MATHEMATICS as MATHEMATICS
from .verifiers import UnitTests as UnitTests
from .verifiers import Verifier as Verifier
