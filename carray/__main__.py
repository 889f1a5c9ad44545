"""`python -m carray` is `carray`."""

from carray.cli import main

main()
