"""The image that pins everything: its locks, its build, what it says of itself, and where it is kept."""
