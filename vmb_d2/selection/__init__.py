"""Which regions are read out of the network, and their features."""
