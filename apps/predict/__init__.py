"""What ``predict_lseg.py`` is made of: where results go, taking up a killed run, videos, embeddings."""
