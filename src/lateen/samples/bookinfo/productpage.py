"""productpage: the page that combines details and reviews; login and logout; a small JSON API."""

from __future__ import annotations

import asyncio
import json
import os
from html import escape
from urllib.parse import quote, unquote

from lateen.samples.bookinfo.http import Request, Response, as_json, call, digits, segments, serve

DETAILS = os.environ.get("DETAILS_HOSTNAME", "details")
REVIEWS = os.environ.get("REVIEWS_HOSTNAME", "reviews")
RATINGS = os.environ.get("RATINGS_HOSTNAME", "ratings")
PRODUCT = {
    "id": 0,
    "title": "The Comedy of Errors",
    "descriptionHtml": "Two pairs of twins who do not know of each other come to Ephesus on the same day, and "
    "everybody there takes one for the other: a comedy of mistakes, one of Shakespeare's "
    "shortest.",
}
STYLE = b"""body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1d2733;background:#f5f7fa}
nav{background:#1d3557;color:#fff;padding:.7rem 2rem;display:flex;justify-content:space-between;align-items:center}
nav form{display:inline}nav input{padding:.3rem}nav button{padding:.35rem .9rem}
main{max-width:60rem;margin:2rem auto;padding:0 1rem}h1{text-align:center}
.columns{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
section{background:#fff;padding:1rem 1.5rem;border-radius:8px}
dt{font-weight:600}blockquote{border-left:4px solid #457b9d;margin:1rem 0;padding:.2rem 1rem}
.star-black{color:#111}.star-red{color:#d62828}small{color:#667}"""


def _user(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == "session-user":
            return unquote(value)
    return ""


def _headers(request: Request) -> dict[str, str]:
    user = _user(request)
    return request.traced() | ({"end-user": user} if user else {})


async def _ask(
    host: str, path: str, request: Request, timeout: float = 3.0, tries: int = 1
) -> tuple[int, dict[str, object]]:
    for _ in range(tries):
        try:
            status, body = await call(host, 9080, path, _headers(request), timeout)
            if status == 200:
                return 200, json.loads(body)
        except (OSError, TimeoutError, ValueError):
            continue
    name = host.partition(".")[0]
    return 503, {"error": f"Sorry, product {name} are currently unavailable for this book."}


async def _details(request: Request, product: int) -> tuple[int, dict[str, object]]:
    return await _ask(DETAILS, f"/details/{product}", request)


async def _reviews(request: Request, product: int) -> tuple[int, dict[str, object]]:
    return await _ask(REVIEWS, f"/reviews/{product}", request, tries=2)


def _stars(rating: dict[str, object]) -> str:
    if "stars" not in rating:
        return f"<p>{escape(str(rating.get('error', '')))}</p>"
    count = int(str(rating["stars"]))
    return (
        f'<p class="star-{escape(str(rating.get("color", "black")))}" aria-label="{count} stars">'
        + '<span class="glyphicon glyphicon-star">★</span>' * count
        + "☆" * (5 - count)
        + "</p>"
    )


def _page(user: str, details: tuple[int, dict[str, object]], reviews: tuple[int, dict[str, object]]) -> str:
    if user:
        account = f'<span>{escape(user)} (<a href="/logout" style="color:#fff">sign out</a>)</span>'
    else:
        account = (
            '<form method="post" action="/login"><input name="username" placeholder="User name" aria-label="User '
            'name"><input name="passwd" type="password" placeholder="Password" aria-label="Password"> '
            "<button>Sign in</button></form>"
        )
    if details[0] == 200:
        keys = (
            ("type", "Type"),
            ("pages", "Pages"),
            ("publisher", "Publisher"),
            ("language", "Language"),
            ("ISBN-10", "ISBN-10"),
            ("ISBN-13", "ISBN-13"),
        )
        left = (
            "<h4>Book Details</h4><dl>"
            + "".join(f"<dt>{label}:</dt><dd>{escape(str(details[1].get(key, '')))}</dd>" for key, label in keys)
            + "</dl>"
        )
    else:
        left = f"<h4>Error fetching product details!</h4><p>{escape(str(details[1].get('error')))}</p>"
    if reviews[0] == 200:
        found = reviews[1].get("reviews")
        right = "<h4>Book Reviews</h4>" + "".join(
            f"<blockquote><p>{escape(r['text'])}</p><small>{escape(r['reviewer'])}</small>"
            + (_stars(r["rating"]) if r.get("rating") else "")
            + "</blockquote>"
            for r in (found if isinstance(found, list) else [])
        )
        right += f"<dl><dt>Reviews served by:</dt><dd><u>{escape(str(reviews[1].get('podname')))}</u></dd></dl>"
    else:
        right = f"<h4>Error fetching product reviews!</h4><p>{escape(str(reviews[1].get('error')))}</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <title>Simple Bookstore App</title>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1.0">
    <link rel="stylesheet" href="/static/bookinfo.css">
  </head>
  <body>
    <nav><strong>BookInfo Sample</strong>{account}</nav>
    <main>
      <h1>{escape(str(PRODUCT["title"]))}</h1>
      <p>Summary: {PRODUCT["descriptionHtml"]}</p>
      <div class="columns"><section>{left}</section><section>{right}</section></div>
    </main>
  </body>
</html>
"""


def _back(request: Request, cookie: str) -> Response:
    return Response(
        302,
        b"",
        "text/html",
        {
            "location": request.headers.get("referer") or "/productpage",
            "set-cookie": f"{cookie}; Path=/; HttpOnly; SameSite=Lax",
        },
    )


async def _api(request: Request, rest: list[str]) -> Response:
    match rest:
        case []:
            return as_json([PRODUCT])
        case [number, *what] if digits(number) and int(number) == 0:
            match what:
                case []:
                    status, found = await _details(request, 0)
                case ["reviews"]:
                    status, found = await _reviews(request, 0)
                case ["ratings"]:
                    status, found = await _ask(RATINGS, "/ratings/0", request)
                case _:
                    return as_json({"error": "not found"}, 404)
            return as_json(found, status)
    return as_json({"error": "not found"}, 404)


async def handle(request: Request) -> Response:
    match segments(request.path):
        case ["health"]:
            return Response(200, b"Product page is healthy", "text/html; charset=utf-8")
        case ["productpage"]:
            details, reviews = await asyncio.gather(_details(request, 0), _reviews(request, 0))
            page = _page(_user(request), details, reviews)
            return Response(200, page.encode(), "text/html; charset=utf-8")
        case ["" | "index.html"]:
            return Response(200, b'<title>Simple Bookstore App</title><a href="/productpage">Bookinfo</a>', "text/html")
        case ["login"] if request.method == "POST":
            return _back(request, f"session-user={quote(request.form.get('username', ''))}")
        case ["logout"]:
            return _back(request, "session-user=; Max-Age=0")
        case ["static", "bookinfo.css"]:
            return Response(200, STYLE, "text/css")
        case ["api", "v1", "products", *rest]:
            return await _api(request, rest)
    return as_json({"error": "not found"}, 404)


if __name__ == "__main__":
    serve(handle)
