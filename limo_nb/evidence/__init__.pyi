"""What `limo_nb.evidence` offers; the names are loaded when they are asked for."""

from .measuring import CONTRADICTED as CONTRADICTED
from .measuring import REPRODUCED as REPRODUCED
from .measuring import SHOWN as SHOWN
from .measuring import UNDECIDED as UNDECIDED
from .measuring import UNTESTED as UNTESTED
from .measuring import disagreements as disagreements
from .measuring import judge as judge
from .measuring import mean_interval as mean_interval
from .measuring import miniature as miniature
from .measuring import tables as tables
from .rules import Claim as Claim
from .rules import Condition as Condition
from .rules import ledger_path as ledger_path
from .rules import load as load
from .show import ledger_html as ledger_html
from .show import margins as margins
from .show import tally as tally
