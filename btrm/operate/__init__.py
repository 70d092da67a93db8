"""Operating runs on a cluster: what they do, what they say, what they cost; ending and continuing them."""
