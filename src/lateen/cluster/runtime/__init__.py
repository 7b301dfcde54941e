"""PID 1 of the node's namespaces: forks containers, reports exits, keeps their logs."""
