"""Boxes, regions and classes."""
