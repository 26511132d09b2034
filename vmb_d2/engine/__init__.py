"""One extraction run."""
