"""`python -m limo_nb.cli`: the command where no script is installed."""

from limo_nb.cli import main

main()
