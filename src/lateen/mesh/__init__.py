"""The mesh at one instant: immutable, indexed, without protobuf."""
