"""What knows nothing of segmentation: command lines, errors, files, memory, progress, processes, tables, pictures."""
