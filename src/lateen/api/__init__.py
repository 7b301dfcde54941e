"""What users write: types of the mesh's and of Kubernetes' objects, their decoding, validation and CRDs."""
