"""What users write: typed Kubernetes and mesh objects, decoded once with positions for error messages."""
