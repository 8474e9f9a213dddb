"""LSeg's network, its weights, its training: everything that does not read a dataset."""
