"""Servers with a secret, and a client that asks for it in bytes of its own: programs for pods.

Each server answers ``SECRET`` for the path /admin, for the host admin.site.test and to the role "evil", each as its
kind of software reads requests: it decodes and resolves paths, ignores a host's case, port and final dot, and takes
several values of a header, in lines of their own or with commas, for a list.
"""

PYTHON = """
import functools, http.server, os

class Site(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        given = [h for line in self.headers.get_all("Host", []) for h in line.split(",")]
        names = {h.strip().lower().rpartition("@")[2].partition(":")[0].rstrip(".") for h in given}
        roles = {r.strip(" \\t") for line in self.headers.get_all("X-Role", []) for r in line.split(",")}
        if "admin.site.test" not in names and "evil" not in roles:
            return super().do_GET()
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"SECRET")

    def log_message(self, *_):
        pass

os.makedirs("/tmp/site/open")
open("/tmp/site/admin", "w").write("SECRET")
open("/tmp/site/open/x", "w").write("open")
http.server.ThreadingHTTPServer.request_queue_size = 128
made = functools.partial(Site, directory="/tmp/site")
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), made).serve_forever()
"""
NODE = r"""
const http = require("http"), path = require("path")

http.createServer((request, response) => {
  const host = (request.headers.host || "").split("@").pop()
  let name = "", where = ""
  try { name = new URL("http://" + host).hostname.replace(/\.+$/, "") } catch {}
  try {
    const asked = new URL(request.url.replace(/^\/+/, "/"), "http://x").pathname
    where = path.posix.normalize(decodeURIComponent(asked).replace(/\\/g, "/"))
  } catch {}
  const roles = (request.headers["x-role"] || "").split(",").map(r => r.trim())
  const secret = name === "admin.site.test" || where === "/admin" || roles.includes("evil")
  response.end(secret ? "SECRET" : "open")
}).listen(8080)
"""
NGINX = r"""
daemon off;
pid /tmp/nginx.pid;
error_log stderr crit;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d;
  scgi_temp_path /tmp/e;
  map $http_x_role $evil { default 0; "~(^|,)[ \t]*evil[ \t]*(,|$)" 1; }
  server {
    listen 8080 default_server;
    if ($evil) { return 200 SECRET; }
    location = /admin { return 200 SECRET; }
    location / { return 200 open; }
  }
  server { listen 8080; server_name admin.site.test; return 200 SECRET; }
}
"""
CLIENT = r"""
import concurrent.futures, http.client, json, socket, sys, time
import h2.config, h2.connection, h2.events

class Unavailable(Exception):
    '''The server behind the proxy could not be asked, so that nothing is known.'''

def h1(address, hosts, path, lines):
    head = ["GET " + path + " HTTP/1.1", *("Host: " + h for h in hosts), *lines, "Connection: close", "", ""]
    with socket.create_connection(address.split(":"), timeout=30) as s:
        s.sendall("\r\n".join(head).encode("latin-1"))
        answer = http.client.HTTPResponse(s)
        try:
            answer.begin()
            if answer.status in UNAVAILABLE:
                raise Unavailable
            return answer.read()
        except (ConnectionError, http.client.HTTPException):
            return b""

UNAVAILABLE = (502, 503, 504)
CONFIG = h2.config.H2Configuration(
    header_encoding=False, validate_outbound_headers=False, normalize_outbound_headers=False
)

def h2_(address, hosts, path, lines):
    '''What is sent is neither checked nor corrected on the way.'''
    first, *more = hosts
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", first), (":path", path)]
    fields += [("host", h) for h in more]
    fields += [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    with socket.create_connection(address.split(":"), timeout=30) as s:
        return exchange(s, fields)

def exchange(s, fields):
    connection, out = h2.connection.H2Connection(CONFIG), b""
    connection.initiate_connection()
    connection.send_headers(1, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in fields], end_stream=True)
    try:
        s.sendall(connection.data_to_send())
        while data := s.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    if int(dict(event.headers)[b":status"]) in UNAVAILABLE:
                        raise Unavailable
                if isinstance(event, h2.events.DataReceived):
                    out += event.data
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return out
            s.sendall(connection.data_to_send())
    except (ConnectionError, h2.exceptions.ProtocolError):
        pass
    return out

def ask(place, version, hosts, path, lines):
    address, server = place.split("/")
    for left in reversed(range(5)):
        try:
            return send(version, address, hosts, path, [f"x-server: {server}", *lines])
        except Unavailable:
            if not left:
                return b""
            time.sleep(0.2)

def send(version, address, hosts, path, lines):
    return (h1 if version == "1.1" else h2_)(address, hosts, path, lines)

with concurrent.futures.ThreadPoolExecutor(16) as pool:
    sent = [(place, a, pool.submit(ask, place, *a)) for place, asked in json.load(sys.stdin).items() for a in asked]
    out = {}
    for place, asked, answer in sent:
        out.setdefault(place, []).extend([asked] if b"SECRET" in answer.result() else [])
print(json.dumps(out))
"""
