"""A procedural world of coloured shapes, its tiny CLIP, its datasets and its report: LSeg on two CPU cores."""
