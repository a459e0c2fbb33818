"""What is trained, and the one loop that trains it."""
