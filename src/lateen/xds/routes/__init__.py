"""HTTP routing: matches, actions, virtual hosts."""
