"""The ground floor: what carries the maths. Knows NumPy, and nothing of ours outside this room."""
