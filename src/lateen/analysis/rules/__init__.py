"""The analyzers, by subject."""
