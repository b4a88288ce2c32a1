"""What `limo_nb.core` offers; the names are loaded when they are asked for."""

from .runs import Artifact as Artifact
from .runs import MissingArtifact as MissingArtifact
from .runs import Run as Run
from .settings import SYSTEM_PROMPT as SYSTEM_PROMPT
from .settings import EngineSettings as EngineSettings
from .settings import EvaluationSettings as EvaluationSettings
from .settings import FilterSettings as FilterSettings
from .settings import PoolSettings as PoolSettings
from .settings import Profile as Profile
from .settings import Sampling as Sampling
from .settings import SftSettings as SftSettings
