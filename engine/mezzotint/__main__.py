"""`python -m mezzotint`."""

from mezzotint.cli import main

main()
