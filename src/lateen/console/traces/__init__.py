"""Traces: takes spans (OTLP, Zipkin), keeps them on disk, answers Jaeger's and Zipkin's queries."""
