"""details: facts about a book."""

from __future__ import annotations

from lateen.samples.bookinfo.http import Request, Response, as_json, digits, segments, serve


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["health"]:
            return as_json({"status": "Details is healthy"})
        case ["details", number] if digits(number):
            return as_json(
                {
                    "id": int(number),
                    "author": "William Shakespeare",
                    "year": 1595,
                    "type": "paperback",
                    "pages": 200,
                    "publisher": "PublisherA",
                    "language": "English",
                    "ISBN-10": "1234567890",
                    "ISBN-13": "123-1234567890",
                }
            )
        case ["details", _]:
            return as_json({"error": "please provide numeric product id"}, 400)
    return as_json({"error": "not found"}, 404)


if __name__ == "__main__":
    serve(handle)
