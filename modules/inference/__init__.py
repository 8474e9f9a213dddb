"""What ``LSegPredictor`` is made of: views of an image, streamed scores, label texts, pixel embeddings, the result."""
