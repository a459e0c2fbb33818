"""Low-rank adapters, one per language."""
