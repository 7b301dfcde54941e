"""ValidatingAdmissionPolicies and their bindings: rules in CEL about any write."""
