"""EnvoyFilter: the user's patches on finished resources."""
