"""The user of the page and their permissions, according to the API and their token: the console itself only reads.

The token travels in a header that no other site's page can set, so there is no cookie to abuse.
"""

from __future__ import annotations

from aiohttp import web

from lateen.api import kinds
from lateen.console import shapes
from lateen.console.answers import answer
from lateen.kit.jsons import Json, dig
from lateen.kube.auth import Fixed
from lateen.kube.client import HttpClient, KubeError, Unreachable

BEARER = "Bearer "
SIGN_IN = "sign in with a token: kubectl -n istio-system create token kiali-editor (or kiali-viewer, which only reads)"
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
MAY = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Identity:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def routes(self, root: str) -> list[web.RouteDef]:
        return [web.get(f"{root}/whoami", self._whoami)]

    def client(self, request: web.Request) -> HttpClient:
        """A client with the user's token. Raises HTTPUnauthorized."""
        given = request.headers.get("Authorization", "")
        token = given.removeprefix(BEARER).strip()
        if not given.startswith(BEARER) or not token.isascii() or not token:
            raise web.HTTPUnauthorized(text=SIGN_IN)
        return self._client.another(Fixed(token))

    async def reads(self, request: web.Request) -> None:
        """Raises HTTPUnauthorized and HTTPForbidden for those who may not read the mesh's configuration."""
        kind = kinds.VIRTUAL_SERVICE
        async with self.client(request) as client:
            try:
                allowed = await may(client, "list", kind.group, kind.plural, "")
            except (KubeError, Unreachable) as e:
                raise refused(e) from None
        if not allowed:
            raise web.HTTPForbidden(text=f"your account may not read the configuration of the mesh; {SIGN_IN}")

    async def _whoami(self, request: web.Request) -> web.Response:
        async with self.client(request) as client:
            try:
                review = await client.call("POST", WHO, _review("authentication.k8s.io/v1", "SelfSubjectReview"))
                kind = kinds.VIRTUAL_SERVICE
                edits = await may(client, "update", kind.group, kind.plural, "")
            except (KubeError, Unreachable) as e:
                raise refused(e) from None
        found: shapes.Who = {"name": str(dig(review, "status", "userInfo", "username", default="")), "edits": edits}
        return answer(found)


async def may(client: HttpClient, verb: str, group: str, resource: str, namespace: str) -> bool:
    """Whether the client's user may do something; without ``namespace``, in all. Raises KubeError, Unreachable."""
    body = _review("authorization.k8s.io/v1", "SelfSubjectAccessReview")
    body["spec"] = {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace}}
    return bool(dig(await client.call("POST", MAY, body), "status", "allowed", default=False))


def refused(e: KubeError | Unreachable) -> web.HTTPException:
    """The answer to a user whom the API has refused, or given none: only 401 says that the token is not valid."""
    code = e.code if isinstance(e, KubeError) else 0
    answers = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound, 409: web.HTTPConflict}
    return answers.get(code, web.HTTPBadGateway)(text=says(e))


def says(e: Exception) -> str:
    if isinstance(e, KubeError) and e.code == 401:
        return f"the token is not valid (any more); {SIGN_IN}"
    if isinstance(e, KubeError) and e.code == 409:
        return f"{e}; load the object again, and make the change there"
    return str(e)


def _review(version: str, kind: str) -> Json:
    return {"apiVersion": version, "kind": kind}
