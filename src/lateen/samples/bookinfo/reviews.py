"""reviews: v1 has text only, v2 adds black stars, v3 red ones (both ask the ratings service)."""

from __future__ import annotations

import json
import os
import socket

from lateen.samples.bookinfo.http import Request, Response, as_json, call, digits, segments, serve

VERSION = os.environ.get("SERVICE_VERSION", "v1")
COLOR = {"v2": "black", "v3": "red"}.get(VERSION)
RATINGS = os.environ.get("RATINGS_HOSTNAME", "ratings")
TEXTS = (
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
)


async def _stars(product: int, headers: dict[str, str]) -> dict[str, int]:
    """Empty if the ratings service is unavailable."""
    try:
        status, body = await call(RATINGS, 9080, f"/ratings/{product}", headers, 10.0 if COLOR == "black" else 2.5)
        return {k: int(v) for k, v in json.loads(body)["ratings"].items()} if status == 200 else {}
    except (OSError, TimeoutError, ValueError, KeyError):
        return {}


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["health"]:
            return as_json({"status": "Reviews is healthy"})
        case ["reviews", number] if digits(number):
            stars = await _stars(int(number), request.traced()) if COLOR else {}
            reviews = []
            for reviewer, text in TEXTS:
                review: dict[str, object] = {"reviewer": reviewer, "text": text}
                if COLOR and reviewer in stars:
                    review["rating"] = {"stars": stars[reviewer], "color": COLOR}
                elif COLOR:
                    review["rating"] = {"error": "Ratings service is currently unavailable"}
                reviews.append(review)
            return as_json({"id": number, "podname": socket.gethostname(), "clustername": "null", "reviews": reviews})
    return as_json({"error": "not found"}, 404)


if __name__ == "__main__":
    serve(handle)
