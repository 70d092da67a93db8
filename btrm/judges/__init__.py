"""Judges: what writes a Judgement for one side of a pair."""
