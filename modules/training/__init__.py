"""A training: its settings, first weights, optimiser, processes and Trainer."""
