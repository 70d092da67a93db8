"""Who can be asked: an API by its own SDK, any OpenAI-compatible server, an engine in this process, a rule."""
