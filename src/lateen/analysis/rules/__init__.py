"""The analyzers, by what they look at."""
