"""btrm: preference data to an evaluated generative reward model."""

__version__ = "0.1.0"
