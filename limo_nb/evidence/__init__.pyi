"""What `limo_nb.evidence` offers; the names are loaded when they are asked for."""

from .judging import CONTRADICTED as CONTRADICTED
from .judging import EQUIVALENT as EQUIVALENT
from .judging import NO_ROOM as NO_ROOM
from .judging import PUBLISHED as PUBLISHED
from .judging import REPRODUCED as REPRODUCED
from .judging import SHOWN as SHOWN
from .judging import UNDECIDED as UNDECIDED
from .judging import UNTESTED as UNTESTED
from .judging import ClaimVerdict as ClaimVerdict
from .judging import disagreements as disagreements
from .judging import interval_told as interval_told
from .judging import judge as judge
from .judging import miniature as miniature
from .measuring import Measured as Measured
from .measuring import TableRow as TableRow
from .measuring import published_score as published_score
from .measuring import tables as tables
from .measuring import tables_of_records as tables_of_records
from .recorded import RecordedResults as RecordedResults
from .rules import Claim as Claim
from .rules import Condition as Condition
from .rules import ledger_path as ledger_path
from .rules import load_ledger as load_ledger
from .show import ledger_html as ledger_html
from .show import margins as margins
from .show import tally as tally
