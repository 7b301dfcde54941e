"""Control loops that reach the cluster only through its API."""
