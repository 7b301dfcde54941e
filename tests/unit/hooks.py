"""A webhook: an HTTPS server of the test's own, which remembers what it was asked and changes what it is told to."""

import base64
import contextlib
import datetime as dt
import http.server
import ipaddress
import json
import ssl
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _certificate():
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = made.add_extension(names, False).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    own = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return cert, key.private_bytes(serialization.Encoding.PEM, *own)


class Hook:
    """``asked``: the requests so far; ``patch``: JSON patch operations that it answers with; ``says``: why not;
    ``code``: as what."""

    def __init__(self):
        self.asked, self.patch, self.says, self.url, self.bundle, self.code = [], [], "", "", "", None

    def answer(self, request):
        self.asked.append(request)
        response = {"uid": request["uid"], "allowed": not self.says, "status": {"message": self.says}}
        if self.code is not None:
            response["status"]["code"] = self.code
        if self.patch:
            patch = base64.b64encode(json.dumps(self.patch).encode()).decode()
            response |= {"patchType": "JSONPatch", "patch": patch}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    def register(self, cluster, kind, group, resources, operations=("CREATE", "UPDATE", "DELETE"), **more):
        """``kind``: mutating or validating."""
        rule = {"apiGroups": [group], "apiVersions": ["v1"], "resources": resources, "operations": list(operations)}
        hook = {"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule]}
        hook["clientConfig"] = {"url": self.url, "caBundle": self.bundle}
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations"
        cluster.must("POST", path, {"metadata": {"name": kind}, "webhooks": [hook | more]})
        return self


class Converter(Hook):
    """A conversion webhook of Widgets: version 1 has ``spec.size: "3x4"``, version 2 ``spec.width`` and ``height``.

    ``change``: what happens to its answer before it is sent.
    """

    def __init__(self):
        super().__init__()
        self.change = lambda _: None

    def answer(self, request):
        self.asked.append(request)
        made = [self._converted(o, request["desiredAPIVersion"]) for o in request["objects"]]
        response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": made}
        answer = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}
        self.change(answer)
        return answer

    def _converted(self, obj, version):
        spec = dict(obj.get("spec") or {})
        if version.endswith("/v2") and "size" in spec:
            width, _, height = spec.pop("size").partition("x")
            spec |= {"width": int(width), "height": int(height)}
        elif version.endswith("/v1") and "width" in spec:
            spec["size"] = f"{spec.pop('width')}x{spec.pop('height', 0)}"
        return {**obj, "apiVersion": version, "spec": spec}


@contextlib.contextmanager
def serving(make=Hook):
    hook = make()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(hook.answer(review["request"])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cert, key = _certificate()
    with tempfile.NamedTemporaryFile() as file:
        file.write(cert + key)
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    hook.url, hook.bundle = f"https://127.0.0.1:{server.server_port}/", base64.b64encode(cert).decode()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
