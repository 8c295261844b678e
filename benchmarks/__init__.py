"""Measured comparisons, printed as a table by `make bench`. Not tests: nothing here passes or fails."""
