"""Commands that show live traffic, without a store: x tap, top, routes, stat, edges."""
