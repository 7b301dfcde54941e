"""Commands that look at traffic as it is now, without a store: x tap, top, routes, stat, edges."""
