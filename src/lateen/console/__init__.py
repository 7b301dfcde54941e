"""The metrics collector, and the console that shows what it has collected."""
