"""Programs in pods: one that receives spans, and a pair that keeps a connection open."""

import json

COLLECTOR = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = b""
        while size := int(self.rfile.readline(), 16):  # Envoy sends chunks
            body += self.rfile.read(size)
            self.rfile.readline()
        for span in json.loads(body):
            print(json.dumps({"service": span["localEndpoint"]["serviceName"], "tags": span["tags"]}), flush=True)
        self.send_response(202); self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 9411), Handler).serve_forever()
"""
SERVER = """
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line * 2)
socketserver.ThreadingTCPServer(("", 9000), Handler).serve_forever()
"""
CLIENT = """
import socket, time
while True:
    try:
        with socket.create_connection(("lines", 9000)) as link:
            while True:
                link.sendall(b"x" * 99 + b"\\n"); link.recv(4096); time.sleep(0.1)
    except OSError:
        time.sleep(0.1)  # the proxy does not know the server yet
"""
TALK = f"""
apiVersion: v1
kind: Service
metadata: {{name: lines, namespace: default}}
spec: {{selector: {{app: lines}}, ports: [{{name: tcp, port: 9000}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: lines, namespace: default, labels: {{app: lines, version: v2}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: lines, image: lateen/sleep, command: [python3, -c, {json.dumps(SERVER)}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: talker, namespace: default, labels: {{app: talker, version: v7}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: talker, image: lateen/sleep, command: [python3, -c, {json.dumps(CLIENT)}]}}]
"""
