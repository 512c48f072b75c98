"""Documentation, and the script that generates some of it."""
