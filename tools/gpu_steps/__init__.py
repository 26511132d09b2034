"""The steps of tools/gpu.py: what only a GPU can tell, measured in ten minutes."""

STEPS = ("parity", "speed", "precision", "kernels", "selection", "tests")  # the most valuable first
