"""The parts of ``predict_lseg.py``: inputs, results, resuming, videos, embeddings."""
