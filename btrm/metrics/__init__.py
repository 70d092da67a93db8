"""Metrics over judgements, numpy only."""
