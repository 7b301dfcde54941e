"""The kinds of findings, by their origin."""
