"""Helpers unrelated to segmentation: command lines, errors, files, memory, progress, processes, tables, pictures."""
