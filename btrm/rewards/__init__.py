"""Bradley-Terry rewards over groups of completions, numpy only."""
