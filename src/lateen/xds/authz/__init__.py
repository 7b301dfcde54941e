"""AuthorizationPolicy as Envoy's RBAC and external authorization filters."""
