"""The collector of the proxies' metrics, and the console that draws them."""
