"""PromQL over the store, as Prometheus 3 evaluates it.

https://prometheus.io/docs/prometheus/latest/querying/basics/ defines the semantics; where it is silent, Prometheus'
``promql/engine.go`` and ``promql/functions.go`` do.
"""
