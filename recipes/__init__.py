"""What the shell scripts share, and the recipes for clusters."""
