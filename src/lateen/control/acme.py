"""A client for ACME servers (RFC 8555): accounts, orders, challenges, certificates.

Users name the server, so each address is checked as for everything that istiod fetches (``control.fetching``), and
responses are bounded in size, number and time. URLs given by the server must use TLS.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from lateen.control.fetching import Fetcher, NotFetched, absolute, shown
from lateen.kit import jose, tls
from lateen.kit.bodies import TooLong, whole
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

MAX_BYTES = 1 << 18
"""The limit for one response"""
REQUEST_S = 20.0
"""Seconds for one request"""
LONGEST_S = 300.0
"""Seconds for an authorization, and for the certificate after it"""
PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Seconds between polls unless the server sends Retry-After, and the maximum"""
LONGEST_AFTER_S = 7 * 24 * 3600.0
NONCES = 20
"""Attempts with fresh nonces: a server may reject any (RFC 8555 section 6.5), and Pebble rejects many at random"""
HTTP, TLS = "http-01", "tls-alpn-01"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
_JOSE = {"Content-Type": "application/jose+json"}


class Refused(Exception):
    """The server has refused a request; ``after_s``: seconds before which it must not be asked again."""

    def __init__(self, says: str, after_s: float = 0.0) -> None:
        super().__init__(says)
        self.after_s = after_s


class NotReached(Refused):
    """The server was not reached, so it may be asked again soon."""


@dataclass(frozen=True)
class Challenge:
    """What the server expects at a host."""

    kind: str
    """``HTTP`` or ``TLS``"""
    host: str
    token: str
    proof: str = field(repr=False)
    """The key authorization (RFC 8555 section 8.1)"""
    url: URL


@dataclass(frozen=True)
class Account:
    """The account of an order, and its server."""

    server: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    email: str = ""
    authorities: str = ""
    """CA certificates (PEM) that verify the server's own certificate; empty: the system's"""
    binding: tuple[str, bytes] | None = field(default=None, repr=False)
    """(identifier, key) for external account binding"""


@dataclass
class _Answer:
    url: URL
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Json:
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{shown(self.url)} did not answer with a JSON object (status {self.status})")
        return found


Chooses = Callable[[str], str]
"""A name -> the kind of challenge for it. Raises Refused if none is configured"""
Shows = Callable[[Sequence[Challenge]], Awaitable[None]]
"""Makes gateways answer challenges; returns once they do"""


class Acme:
    """A session with a server for one order; a context manager."""

    def __init__(self, fetcher: Fetcher, account: Account) -> None:
        self._fetcher, self._account = fetcher, account
        self._tls = tls.client_context(account.authorities or None)
        self._directory: dict[str, URL] = {}
        self._nonce, self._who = "", ""
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Acme:
        self._session = self._fetcher.session()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _request(self, method: str, url: URL, body: bytes | None = None) -> _Answer:
        self._fetcher.check(url)
        try:
            async with (
                asyncio.timeout(REQUEST_S),
                self._session.request(
                    method, url, data=body, headers=_JOSE if body else {}, ssl=self._tls, allow_redirects=False
                ) as answer,
            ):
                self._nonce = answer.headers.get("Replay-Nonce", "")
                return _Answer(url, answer.status, answer.headers, await whole(answer.content.iter_any(), MAX_BYTES))
        except TooLong:
            raise Refused(f"{shown(url)} has more than {MAX_BYTES} bytes") from None
        except TimeoutError:
            raise NotReached(f"{shown(url)} did not answer within {REQUEST_S:g} s") from None
        except aiohttp.ClientConnectorCertificateError as e:
            says = f"the certificate of {shown(url)} is not trusted: {e.certificate_error}"
            raise NotReached(f"{says}; put its CA certificate into spec.acme.caBundle") from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            why = e.strerror if isinstance(e, aiohttp.ClientConnectorError) else str(e)
            raise NotReached(f"{shown(url)} cannot be reached: {why or type(e).__name__}") from None

    async def _post(self, url: URL, payload: Json | None, known: bool = True) -> _Answer:
        """A signed POST. ``known``: whether the account is identified by its URL, not by its key."""
        answer = None
        for _ in range(NONCES):
            nonce = await self._fresh()
            who: Json = {"kid": self._who} if known else {"jwk": jose.public(self._account.key)}
            signed = jose.signed(self._account.key, {"nonce": nonce, "url": str(url), **who}, payload)
            answer = await self._request("POST", url, json.dumps(signed).encode())
            if answer.status < 400:
                return answer
            problem = _problem(answer)
            if not str(problem.get("type", "")).endswith(":badNonce"):
                raise _refusal(answer, problem)
        assert answer is not None
        raise _refusal(answer, _problem(answer))

    async def _fresh(self) -> str:
        if not self._nonce:
            answer = await self._request("HEAD", await self._place("newNonce"))
            if not self._nonce:
                raise Refused(f"{shown(answer.url)} returned no nonce (status {answer.status})")
        out, self._nonce = self._nonce, ""
        return out

    async def _place(self, name: str) -> URL:
        """A URL of the server's directory."""
        if not self._directory:
            base = absolute(self._account.server)
            answer = await self._request("GET", base)
            if answer.status != 200:
                raise Refused(f"{shown(base)} answers with status {answer.status}", _after(answer))
            said = answer.json()
            wanted = ("newNonce", "newAccount", "newOrder")
            if missing := [n for n in wanted if not isinstance(said.get(n), str)]:
                raise Refused(f"{shown(base)} is not an ACME directory: it has no {', '.join(missing)}")
            self._directory = {n: absolute(said[n], base) for n in wanted}
        return self._directory[name]

    # --- accounts ----------------------------------------------------------------------------------------------------

    async def register(self) -> str:
        """The account's URL; the account is created if the server does not know the key. Raises Refused."""
        url = await self._place("newAccount")
        payload: Json = {"termsOfServiceAgreed": True}
        if self._account.email:
            payload["contact"] = [f"mailto:{self._account.email}"]
        if self._account.binding is not None:
            identifier, secret = self._account.binding
            head = {"kid": identifier, "url": str(url)}
            payload["externalAccountBinding"] = jose.authenticated(secret, head, jose.public(self._account.key))
        answer = await self._post(url, payload, known=False)
        self._who = str(absolute(answer.headers.get("Location", ""), url))
        if answer.json().get("status") != "valid":
            raise Refused(f"the account {self._who} is {answer.json().get('status')}")
        return self._who

    # --- orders ------------------------------------------------------------------------------------------------------

    async def order(self, names: Sequence[str], csr: bytes, chooses: Chooses, shows: Shows) -> str:
        """A certificate chain (PEM) for a request (DER). Raises Refused."""
        try:
            await self.register()
            place = await self._place("newOrder")
            asked = [{"type": "dns", "value": name} for name in names]
            answer = await self._post(place, {"identifiers": asked})
            here = absolute(answer.headers.get("Location", ""), place)
            order = answer.json()
            found = [absolute(str(url), here) for url in _list(order, "authorizations")]
            if len(found) > len(names):
                raise Refused(f"{shown(here)} asks for {len(found)} proofs for {len(names)} names")
            try:
                await self._prove(found, frozenset(names), chooses, shows)
                return await self._finished(here, csr)
            except NotReached as e:  # reuse the order: another one would count towards rate limits
                raise Refused(str(e), e.after_s) from None
        except NotFetched as e:
            raise Refused(str(e)) from None
        except UnicodeDecodeError:
            raise Refused("the certificate is not PEM text") from None

    async def _finished(self, here: URL, csr: bytes) -> str:
        """The certificate chain of an order whose authorizations are valid."""
        order = await self._until(here, ("ready", "valid"), ("pending",))
        if order["status"] == "ready":
            finish = absolute(str(order.get("finalize")), here)
            await self._post(finish, {"csr": jose.encode(csr)})
            order = await self._until(here, ("valid",), ("processing", "ready"))
        chain = await self._post(absolute(str(order.get("certificate")), here), None)
        return chain.body.decode("ascii")

    async def _prove(self, urls: Sequence[URL], names: frozenset[str], chooses: Chooses, shows: Shows) -> None:
        pending = []
        for url in urls:
            authorization = (await self._post(url, None)).json()
            if authorization.get("status") == "pending":
                pending.append((url, self._challenge(authorization, names, chooses, url)))
        if not pending:
            return
        await shows([challenge for _, challenge in pending])
        for _, challenge in pending:
            await self._post(challenge.url, {})
        for url, challenge in pending:
            await self._until(url, ("valid",), ("pending",), f"{challenge.host} ({challenge.kind})")

    def _challenge(self, authorization: Json, names: frozenset[str], chooses: Chooses, base: URL) -> Challenge:
        value = authorization.get("identifier")
        host = str(value.get("value", "")).lower() if isinstance(value, dict) else ""
        if host not in names:
            raise Refused(f"{shown(base)} asks for proof of control of {host[:80]}, which was not ordered")
        kind = chooses(host)
        for one in _list(authorization, "challenges"):
            if isinstance(one, dict) and one.get("type") == kind:
                token = str(one.get("token"))
                if not _TOKEN.fullmatch(token):
                    raise Refused(f"{shown(base)} gives an invalid token")
                proof = f"{token}.{jose.thumbprint(self._account.key)}"
                return Challenge(kind, host, token, proof, absolute(str(one.get("url")), base))
        raise Refused(f"the server does not offer {kind} for {host}")

    async def _until(self, url: URL, wanted: tuple[str, ...], pending: tuple[str, ...], what: str = "") -> Json:
        """Poll until an object has one of the wanted states."""
        deadline = asyncio.get_running_loop().time() + LONGEST_S
        while True:
            answer = await self._post(url, None)
            found = answer.json()
            status = found.get("status")
            if status in wanted:
                return found
            if status not in pending:
                raise Refused(f"{what or 'the order'} is {status}: {_why(found)}")
            if asyncio.get_running_loop().time() > deadline:
                raise Refused(f"{what or 'the order'} is still {status} after {LONGEST_S:g} s")
            await asyncio.sleep(min(max(_after(answer), PAUSE_S), LONGEST_PAUSE_S))


def _list(obj: Json, name: str) -> list[object]:
    found = obj.get(name)
    if not isinstance(found, list):
        raise Refused(f"the server's answer has no {name}")
    return found[:1000]


def _problem(answer: _Answer) -> Json:
    """The problem document (RFC 7807); empty if it is not one."""
    try:
        return answer.json()
    except Refused:
        return {}


def _refusal(answer: _Answer, problem: Json) -> Refused:
    kind = str(problem.get("type", "")).rpartition(":")[2]
    says = str(problem.get("detail") or f"status {answer.status}")[:500]
    return Refused(f"{shown(answer.url)} has refused it: {says}{f' ({kind[:60]})' if kind else ''}", _after(answer))


def _after(answer: _Answer) -> float:
    """``Retry-After`` in seconds, at most a week; 0 if there is none."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), LONGEST_AFTER_S) if digits(text) else 0.0


def _why(obj: Json) -> str:
    """The error of an order, or of the challenges of an authorization."""
    found = [obj.get("error")]
    challenges = obj.get("challenges")
    found += [c.get("error") for c in challenges if isinstance(c, dict)] if isinstance(challenges, list) else []
    said = [str(e.get("detail") or e.get("type")) for e in found if isinstance(e, dict)]
    return "; ".join(said)[:500] or "the server gave no reason"
