"""The world at one instant: immutable, indexed, without protobuf."""
