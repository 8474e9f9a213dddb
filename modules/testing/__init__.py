"""A test: label sets, episodes, the protocol, the results and their report."""
