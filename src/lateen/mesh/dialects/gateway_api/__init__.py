"""The Gateway API as listeners and routes.

Source: https://gateway-api.sigs.k8s.io/reference/spec/ (1.6), and for implementation-specific behaviour, Istio's
pilot/pkg/config/kube/gateway. Pure: lookups are passed in by ``mesh.gateway_routes``.
"""
