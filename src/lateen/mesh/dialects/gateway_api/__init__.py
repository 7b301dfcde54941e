"""The Gateway API as listeners and routes.

Source: https://gateway-api.sigs.k8s.io/reference/spec/ (1.6), and for what it leaves to implementations, Istio's:
pilot/pkg/config/kube/gateway. Pure: ``mesh.gateway_routes`` looks up what is asked for here.
"""
