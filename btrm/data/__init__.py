"""Preference sets: one file a source, all of them yielding PreferencePair."""
