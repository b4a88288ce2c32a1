"""What `limo_nb.core` offers; the names are loaded when they are asked for."""

from .digests import UnknownCapture as UnknownCapture
from .files import write_json as write_json
from .paper import reported as reported
from .precision import settle as settle
from .recorded_runs import RecordedRun as RecordedRun
from .records import load_table as load_table
from .records import save_tables as save_tables
from .records import table_digest as table_digest
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
from .settings import load_profile as load_profile
from .settings import profile_names as profile_names
