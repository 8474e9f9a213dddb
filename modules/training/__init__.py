"""A training: its options, what it starts from, the optimiser, the processes, the Trainer."""
