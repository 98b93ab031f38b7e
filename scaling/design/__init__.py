"""Which runs to make: designs under a budget of FLOPs, and what they would tell before any of them is made."""
