"""What things cost and how often they err: each prints the tables of a page in docs/."""
