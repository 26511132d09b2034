"""What an output folder holds: stores, manifest, failures, lock."""
