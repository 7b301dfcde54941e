"""ratings: stars per reviewer; a POST replaces them until the service restarts."""

from __future__ import annotations

import json

from lateen.samples.bookinfo.http import Request, Response, as_json, digits, segments, serve

_ratings: dict[int, dict[str, int]] = {}


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["health"]:
            return as_json({"status": "Ratings is healthy"})
        case ["ratings", number] if digits(number):
            product = int(number)
            if request.method == "POST":
                try:
                    given = json.loads(request.body)
                    _ratings[product] = {str(k): int(v) for k, v in given.items()}
                except (ValueError, AttributeError, TypeError):
                    return as_json({"error": "please provide valid ratings JSON"}, 400)
            stars = _ratings.get(product, {"Reviewer1": 5, "Reviewer2": 4})
            return as_json({"id": product, "ratings": stars})
        case ["ratings", _]:
            return as_json({"error": "please provide numeric product ID"}, 400)
    return as_json({"error": "not found"}, 404)


if __name__ == "__main__":
    serve(handle)
