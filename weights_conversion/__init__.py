"""Converts VMB checkpoints to Detectron2's layout, and back."""
