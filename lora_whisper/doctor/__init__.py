"""Faults of data, found before a training is wasted on them."""
