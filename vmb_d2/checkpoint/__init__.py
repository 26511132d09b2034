"""From a model's name to a network with weights: fetched, converted once, loaded."""
