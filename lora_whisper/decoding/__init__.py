"""From log-mel to text."""
