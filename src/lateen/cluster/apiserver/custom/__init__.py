"""Custom resources: their definitions, and what these say of structure, values and changes."""
