"""PID 1 of the node's namespaces: forks containers, reports their exits, keeps their logs."""
