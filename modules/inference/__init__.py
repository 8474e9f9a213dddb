"""The parts of ``LSegPredictor``: views of an image, streamed scores, label texts, pixel embeddings, the result."""
