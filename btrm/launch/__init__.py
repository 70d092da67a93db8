"""Where and how stages run: sites, executors, plans."""
