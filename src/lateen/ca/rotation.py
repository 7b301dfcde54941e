"""CA rotation such that no workload ever presents a certificate that a peer does not trust yet. Pure.

A root is published before anything is signed under it, and stays published until everything that was signed under it
has expired. One rule covers a new root, a new intermediate, and a change between Secrets: the desired signer is
compared with the effective state. All replicas of istiod follow one ``State``, which is stored in a Secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lateen.ca import revocation
from lateen.ca import signer as ca
from lateen.ca.signer import SELF_SIGNED, Signer, Unusable
from lateen.kit import certs, jsons, times
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json


@dataclass(frozen=True)
class Pace:
    announce: timedelta = timedelta(minutes=10)
    """How long a root must have been in every namespace before anything is signed under it: Kubernetes may take over a
    minute to update the files of a mounted ConfigMap, and machines request roots every minute."""
    ttl: timedelta = timedelta(hours=24)
    """The lifetime of certificates."""


PACE = Pace()


@dataclass(frozen=True)
class Trusted:
    root: str
    since: datetime | None = None
    """When it had been written to every namespace; None: it has not been yet."""
    until: datetime | None = None
    """When it stops being trusted; None while it is in use."""


@dataclass(frozen=True)
class Listed:
    """A CA, and its revocation list."""

    ca: str
    crl: str
    made: bool = False
    """Whether istiod created it (an empty list), because the user provides none."""
    until: datetime | None = None
    """When everything signed by this CA has expired; None while it signs."""
    since: datetime | None = None
    """When the list had been written to every namespace; None: it has not been yet."""


@dataclass(frozen=True)
class State:
    signer: Signer
    """The current signer."""
    trusted: tuple[Trusted, ...]
    ttl: timedelta = timedelta(hours=24)
    """The longest lifetime of certificates that it has signed."""
    follows: str = SELF_SIGNED
    """The Secret with the desired CA."""
    lists: tuple[Listed, ...] = ()
    """The revocation lists of all relevant CAs, if there are any."""

    @property
    def bundle(self) -> str:
        """The trusted roots, PEM; the first one is the signing root."""
        anchor = self.signer.anchor
        return "".join(sorted((t.root for t in self.trusted), key=lambda r: r != anchor))

    def trusts(self, root: str) -> bool:
        return any(t.root == root for t in self.trusted)


def begin(wanted: Signer, now: datetime, pace: Pace, former: Iterable[str] = ()) -> State:
    """The first state, without a stored one: ``wanted`` signs at once. ``former``: roots that proxies already trust
    according to the distributed ConfigMap, and that stay trusted as long as certificates under them may be valid."""
    others = [Trusted(r, now, now + pace.ttl) for r in dict.fromkeys(former) if r not in wanted.roots]
    state = State(wanted, (*(Trusted(r, now) for r in wanted.roots), *others), pace.ttl, wanted.source)
    return replace(state, lists=_listed(state, (wanted,), {wanted}, now))


def step(state: State, wanted: Signer, now: datetime, pace: Pace) -> State:
    """The state at ``now`` for the desired signer ``wanted``."""
    state = replace(state, ttl=max(state.ttl, pace.ttl))
    known = {t.root: t for t in state.trusted if t.until is None or t.until > now}
    for root in (*state.signer.roots, *wanted.roots):
        known[root] = replace(known[root], until=None) if root in known else Trusted(root)
    signer, ttl = state.signer, state.ttl
    if wanted != signer and _ready(state, wanted, known[wanted.anchor], now, pace):
        signer, ttl = wanted, pace.ttl
    lists = _listed(state, (wanted, state.signer, signer), {signer, wanted}, now)
    used = {*signer.roots, *wanted.roots}
    trusted = tuple(_retired(t, used, now, state.ttl) for t in known.values())
    return replace(state, signer=signer, trusted=trusted, ttl=ttl, lists=lists)


def _listed(state: State, signers: Iterable[Signer], stay: set[Signer], now: datetime) -> tuple[Listed, ...]:
    """The user's lists, and an empty one for each CA without a list whose key is available. Of several ``signers``, the
    last one's lists are used: a CA that does not sign yet revokes nothing."""
    known = {x.ca: x for x in state.lists if x.until is None or x.until > now}
    for signer in signers:
        given = revocation.split(signer.crl)
        for authority in dict.fromkeys((*signer.path, *signer.roots)):
            before = known.get(authority)
            if (crl := revocation.of(given, authority)) is not None:
                known[authority] = replace(before or Listed(authority, ""), crl=crl, made=False)
            elif authority == signer.pair.certificate and (before is None or not before.made):
                crl = revocation.empty(signer.pair, now)
                known[authority] = replace(before or Listed(authority, ""), crl=crl, made=True)
    used = {c for signer in stay for c in (*signer.path, *signer.roots)}
    end = now + state.ttl * 1.1
    kept = (replace(x, until=None if x.ca in used else x.until or end) for x in known.values())
    return tuple(sorted(kept, key=lambda x: x.ca))


def revoked(state: State, others: Iterable[str] = ()) -> tuple[str, str]:
    """The effective revocation lists (PEM), and why the user's are not in effect, if so. ``others``: additional trusted
    roots."""
    signer = state.signer
    if not signer.crl:
        return "", ""
    of_others = (
        crl for crl in revocation.split(signer.crl) if all(revocation.of([crl], x.ca) is None for x in state.lists)
    )
    lists = (*(x.crl for x in state.lists), *of_others)
    for path in (signer.path, *((t.root,) for t in state.trusted), *((r,) for r in others)):
        if why := revocation.without(lists, path):
            return "", f"the revocation lists of Secret {signer.source} are not in effect: {why}"
    return "".join(lists), ""


def _ready(state: State, wanted: Signer, anchor: Trusted, now: datetime, pace: Pace) -> bool:
    """Whether proxies accept certificates signed by ``wanted``, or waiting is pointless: they trust its root and, if
    revocation lists are in use, have its list; they would reject certificates from a CA without a list."""
    if state.signer.end <= now:
        return True
    sinces = [] if anchor.root == state.signer.anchor else [anchor.since]
    if state.signer.crl:
        lists = {x.ca: x.since for x in state.lists}
        sinces += [lists.get(c) for c in wanted.path if c not in state.signer.path]
    return all(since is not None and since + pace.announce <= now for since in sinces)


def _retired(t: Trusted, used: set[str], now: datetime, ttl: timedelta) -> Trusted:
    """Trusted a little longer than certificates are valid, to allow for replicas and clock skew."""
    return t if t.root in used or t.until is not None else replace(t, until=now + ttl * 1.1)


def due(state: State, wanted: Signer, now: datetime, pace: Pace) -> datetime | None:
    """When ``step`` will next have an effect by itself; None: never."""
    at = [t.until for t in state.trusted if t.until is not None]
    if wanted != state.signer:
        at.append(state.signer.end)
        sinces = [t.since for t in state.trusted if t.root == wanted.anchor]
        sinces += [x.since for x in state.lists if x.ca in wanted.path]
        at += [since + pace.announce for since in sinces if since is not None and since + pace.announce > now]
    return max(now, min(at)) if at else None


def announced(state: State, roots: Collection[str], now: datetime, crl: str = "") -> State:
    """The state after these roots and revocation lists have been written to every namespace."""
    trusted = (replace(t, since=now) if t.since is None and t.root in roots else t for t in state.trusted)
    lists = (replace(x, since=now) if x.since is None and (not crl or x.crl in crl) else x for x in state.lists)
    return replace(state, trusted=tuple(trusted), lists=tuple(lists))


def adopted(present: State, found: State) -> State:
    """The state after somebody else has written the record. If its signer is under a root unknown to this istiod (for
    example in a record from a backup), it does not take effect at once: its roots become trusted, and then the desired
    signer follows the usual steps."""
    if present.trusts(found.signer.anchor):
        return found
    known = {t.root for t in present.trusted}
    new = tuple(replace(t, since=None) for t in found.trusted if t.root not in known)
    return replace(present, trusted=(*present.trusted, *new), ttl=max(present.ttl, found.ttl))


def distrust(state: State, fingerprint: str, now: datetime) -> State:
    """The state without the former root with that fingerprint; a root that is in use or desired stays."""
    return replace(
        state,
        trusted=tuple(
            replace(t, until=now) if t.until and certs.fingerprint(t.root) == fingerprint else t for t in state.trusted
        ),
    )


def roots_expire(state: State) -> datetime:
    """When the signing root expires."""
    return certs.validity(state.signer.anchor)[1]


# --- serialization --------------------------------------------------------------------------------------------------


def dump(state: State) -> str:
    s = state.signer
    signer = {"certificate": s.pair.certificate, "key": s.pair.key, "between": s.between, "roots": s.roots}
    trusted = [
        {
            "root": t.root,
            "since": _stamp(t.since),
            "until": _stamp(t.until),
        }
        for t in state.trusted
    ]
    return jsons.dumps(
        {
            "signer": {**signer, "source": s.source, "crl": s.crl},
            "trusted": trusted,
            "ttl": state.ttl.total_seconds(),
            "follows": state.follows,
            "lists": [
                {"ca": x.ca, "crl": x.crl, "made": x.made, "until": _stamp(x.until), "since": _stamp(x.since)}
                for x in state.lists
            ],
        }
    ).decode()


def _stamp(at: datetime | None) -> str | None:
    return times.stamp(at) if at else None


def load(text: str) -> State:
    """A state whose signer can sign, apart from dates. Raises ValueError."""
    try:
        found = jsons.loads(text)
        s = found["signer"]
        pair = Pair(str(s["certificate"]), str(s["key"]))
        signer = Signer(pair, tuple(s["between"]), tuple(s["roots"]), str(s["source"]), str(s["crl"]))
        ca.check(signer)
        revocation.split(signer.crl)
        ttl = timedelta(seconds=float(found["ttl"]))
        lists = tuple(map(_list, found.get("lists") or ()))
        state = State(signer, tuple(map(_trusted, found["trusted"])), ttl, str(found["follows"]), lists)
    except Unusable as e:
        raise ValueError(f"the recorded certificate authority cannot be used: {e}") from e
    except Exception as e:  # a Secret written by somebody else may contain anything
        raise ValueError(f"the record of the certificate authority cannot be read: {type(e).__name__} {e}") from e
    if not state.trusts(signer.anchor):
        raise ValueError("the record of the certificate authority does not trust the root under which it signs")
    return state


def _list(x: Json) -> Listed:
    until, since = (times.parse(x[k]) if x.get(k) else None for k in ("until", "since"))
    return Listed(certs.split(x["ca"])[0], revocation.split(x["crl"])[0], bool(x["made"]), until, since)


def _trusted(t: Json) -> Trusted:
    certs.validity(str(t["root"]))
    since, until = (times.parse(t[k]) if t[k] else None for k in ("since", "until"))
    return Trusted(str(t["root"]), since, until)
