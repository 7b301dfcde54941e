"""Objects, revisions and watches; durable in SQLite."""
