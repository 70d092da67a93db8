"""Tables and pictures from evaluated judgements."""
