"""A provider of logins (OpenID Connect) and a browser, as programs for pods and for this host."""

PROVIDER = r"""
import base64, hashlib, http.server, json, secrets, sys, urllib.parse
BASE, INSIDE = "http://login.test", "http://login.tasks.svc.cluster.local"
asked, pairs = {}, {"client_id": "shop", "client_secret": "of-the-shop"}
segment = lambda d: base64.urlsafe_b64encode(json.dumps(d).encode()).decode().rstrip("=")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        at = urllib.parse.urlsplit(self.path)
        q = dict(urllib.parse.parse_qsl(at.query))
        if at.path == "/.well-known/openid-configuration":
            ends = {"authorization_endpoint": BASE + "/authorize", "token_endpoint": INSIDE + "/token"}
            return self.answer(200, json.dumps({"issuer": INSIDE, **ends}).encode())
        if at.path.startswith("/check"):
            good = self.headers.get("x-pass") == "yes"
            return self.answer(200 if good else 403, b"", **{"x-checked": "by-login"})
        if at.path != "/authorize" or q.get("client_id") != "shop" or "openid" not in q.get("scope", ""):
            return self.answer(400, b"what?")
        code = secrets.token_hex(8)
        asked[code] = q
        self.answer(302, Location=q["redirect_uri"] + "?" + urllib.parse.urlencode({"code": code, "state": q["state"]}))
    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        q = asked.pop(form.get("code"), None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).decode()
        if not q or any(form.get(k) != v for k, v in pairs.items()) or form["redirect_uri"] != q["redirect_uri"]:
            return self.answer(400, b'{"error": "invalid_grant"}')
        if q.get("code_challenge", proof.rstrip("=")) != proof.rstrip("="):
            return self.answer(400, b'{"error": "invalid_grant"}')
        token = segment({"alg": "none"}) + "." + segment({"sub": "alice"}) + ".x"
        body = {"access_token": "token-of-alice", "id_token": token, "token_type": "Bearer", "expires_in": 600}
        self.answer(200, json.dumps(body).encode(), **{"Content-Type": "application/json"})
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

BROWSER = r"""
import http.client, json, sys, urllib.parse
start, places, jars = json.load(sys.stdin)
url, steps = start, []
for _ in range(8):
    at = urllib.parse.urlsplit(url)
    host, port = places.get(at.hostname, [at.hostname, at.port or 80])
    jar = jars.setdefault(at.hostname, {})
    c = http.client.HTTPConnection(host, port, timeout=8)
    c.putrequest("GET", at.path + ("?" + at.query if at.query else ""), skip_host=True)
    c.putheader("Host", at.netloc)
    if jar:
        c.putheader("Cookie", "; ".join(k + "=" + v for k, v in jar.items()))
    c.endheaders()
    r = c.getresponse()
    body = r.read().decode()
    steps.append([r.status, url])
    for line in r.headers.get_all("Set-Cookie") or []:
        pair, *more = line.split(";")
        name, _, value = pair.partition("=")
        gone = any(m.strip().lower() in ("max-age=0", "expires=thu, 01 jan 1970 00:00:00 gmt") for m in more)
        jar.pop(name, None) if gone else jar.update({name: value})
    if r.status not in (301, 302, 303, 307):
        break
    url = urllib.parse.urljoin(url, r.headers["Location"])
print(json.dumps({"steps": steps, "body": body, "jars": jars}))
"""
