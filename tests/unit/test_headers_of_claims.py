"""Headers with claims, in a real Envoy: applications see what verified tokens say, nothing that clients write there."""

import pytest
import tokens
from filtering import behind

from lateen.api.config import decode
from lateen.api.security import JWTRule
from lateen.xds import jwt

SEEN = ("x-user", "x-role", "x-all")
PREFLIGHT = {"origin": "https://shop.test", "access-control-request-method": "GET"}


def rule(issuer, **more):
    return {"issuer": issuer, "jwks": tokens.key_set("a"), **more}


def output(header, claim="sub"):
    return {"outputClaimToHeaders": [{"header": header, "claim": claim}]}


def configured(*rules):
    """Of RequestAuthentications: the rules by their issuers, as istiod sorts them."""
    read = [decode(JWTRule, r) for r in sorted(rules, key=lambda r: r["issuer"])]
    return jwt.configuration([(r, r.jwks) for r in read], gateway=False)


def required(*rules, optional=False):
    """Of a SecurityPolicy."""
    read = [decode(JWTRule, r) for r in rules]
    return jwt.required([(r, r.jwks) for r in read], ["" for _ in read], optional, again=False)


def envoy(directory, config):
    """Asks a server behind the filter: method, path, headers -> status, and the headers that it sees."""
    return behind(directory, [config], SEEN)


def bearer(issuer, **claims):
    return f"Bearer {tokens.token('a', iss=issuer, **claims)}"


STAFF = rule("staff", **output("x-role", "role"), outputPayloadToHeader="x-all")
PARTNERS = rule("partners", **output("x-user"))


@pytest.mark.parametrize("made", [configured, required])
def test_a_token_of_one_issuer_is_no_way_to_write_the_headers_of_another(tmp_path, made):
    """Also where it is valid, so that Envoy looks at no other rule."""
    with envoy(tmp_path, made(PARTNERS, STAFF)) as ask:
        forged = {"x_user": "root", "x_role": "admin", "x_all": "e30"}
        assert ask(**forged)[1] == {}
        assert ask(authorization=bearer("partners", sub="joe"), **forged) == (200, {"x-user": "joe"})
        status, seen = ask(authorization=bearer("staff", role="cook"), **forged)
        assert (status, seen["x-role"], set(seen)) == (200, "cook", {"x-role", "x-all"})
        assert seen["x-all"] != "e30"


def test_a_preflight_needs_no_token_but_what_it_has_is_verified(tmp_path):
    with envoy(tmp_path, configured({**PARTNERS, "presence": "REQUIRED"})) as ask:
        assert ask()[0] == 401
        assert ask("OPTIONS")[0] == 401
        assert ask("OPTIONS", **PREFLIGHT) == (200, {})
        assert ask("OPTIONS", x_user="root", **PREFLIGHT) == (200, {})
        assert ask("OPTIONS", authorization="Bearer nonsense", **PREFLIGHT)[0] == 401
        assert ask("GET", **PREFLIGHT)[0] == 401
        assert ask("OPTIONS", **{**PREFLIGHT, "origin": ""})[0] == 401


BY_HEADER, BY_COOKIE = rule("a", **output("x-user")), rule("c", fromCookies=["session"], **output("x-user"))


def cookie(issuer, **claims):
    return f"session={tokens.token('a', iss=issuer, **claims)}"


@pytest.mark.parametrize("optional", [True, False])
def test_issuers_with_tokens_in_different_places_may_write_the_same_header(tmp_path, optional):
    """Such as that of an API's clients, and that of browsers."""
    made = required(BY_COOKIE, BY_HEADER, optional=True) if optional else configured(BY_HEADER, BY_COOKIE)
    with envoy(tmp_path, made) as ask:
        assert ask(x_user="root") == (200, {})
        assert ask(authorization=bearer("a")) == (200, {"x-user": "joe"})
        assert ask(cookie=cookie("c", sub="eve")) == (200, {"x-user": "eve"})
        assert ask(authorization=bearer("a"), cookie=cookie("c"))[0] == 200
        assert ask(authorization=bearer("a"), cookie=cookie("a"))[0] == 401
        assert ask(authorization="Bearer nonsense", cookie=cookie("c"))[0] == 401
        assert ask(authorization=bearer("a"), cookie="session=nonsense")[0] == 401


def test_one_of_the_tokens_in_different_places_may_be_required(tmp_path):
    with envoy(tmp_path, configured(BY_HEADER, {**BY_COOKIE, "presence": "REQUIRED"})) as ask:
        assert ask()[0] == 401
        assert ask(authorization=bearer("a"))[0] == 401
        assert ask(cookie=cookie("c", sub="eve")) == (200, {"x-user": "eve"})
        assert ask("OPTIONS", **PREFLIGHT) == (200, {})
