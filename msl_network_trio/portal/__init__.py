"""From threads into Trio and back. What is here knows nothing of MSL-Network."""
