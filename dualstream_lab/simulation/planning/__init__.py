"""How many of each part a load takes, and what an outage does."""
