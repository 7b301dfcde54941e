"""Time series on disk: the last 24 hours of what was scraped, within a bounded size."""
