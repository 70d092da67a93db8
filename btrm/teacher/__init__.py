"""The teacher: whoever labels the pairs that a student is warmed up on, asked without losing or doubling a call."""
