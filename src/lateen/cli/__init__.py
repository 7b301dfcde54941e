"""The lateen command."""
