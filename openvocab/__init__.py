"""Open-vocabulary evaluation of any model: benchmarks, label wordings, protocols, scores, and robustness to labels."""
