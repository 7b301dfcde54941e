"""Both sides of a conversation in the incremental xDS protocol."""

from lateen.ads.conversation import Request
from lateen.ads.session import Session
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet


def sets(**versions):
    return ResourceSet(
        {n: Resource(n, v, f"{n}={v}".encode(), (f"VirtualService default/{n}",)) for n, v in versions.items()}
    )


def sent(responses):
    return [(names.SHORT[r.type_url], {x.name: x.version for x in r.resources}, r.removed) for r in responses]


def ack(session, response, error=""):
    return session.receive(Request(response.type_url, response.nonce, error=error))


def connected(**clusters):
    session = Session()
    session.offer({names.CDS: (sets(**clusters),)})
    responses, _ = session.receive(Request(names.CDS))
    return session, responses
