"""`python -m limo_nb`: the command where no script is installed."""

from limo_nb.cli import main

main()
