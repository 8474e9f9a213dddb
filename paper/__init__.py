"""The ledger of the paper: every table and figure, what it needs, and the runs that reproduce it."""
