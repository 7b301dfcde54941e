"""A pod in the format of ``kubectl describe``. Pure."""

from __future__ import annotations

from typing import Any

from lateen.kit import duration, jsons, times
from lateen.kit.jsons import Json, dig

WIDTH = 18


def pod(obj: Json, events: list[Json]) -> str:
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    node = spec.get("nodeName")
    out = [
        _line("Name:", meta["name"]),
        _line("Namespace:", meta["namespace"]),
        _line("Priority:", spec.get("priority", 0)),
        _line("Service Account:", spec.get("serviceAccountName", "default")),
        _line("Node:", f"{node}/{status.get('hostIP', '')}" if node else "<none>"),
        _line("Start Time:", _time(status.get("startTime"))),
        *_map("Labels:", meta.get("labels") or {}, "="),
        *_map("Annotations:", meta.get("annotations") or {}, ": "),
        _line("Status:", status.get("phase", "")),
        _line("IP:", status.get("podIP", "")),
        "IPs:",
        *(f"  IP:           {ip['ip']}" for ip in status.get("podIPs") or []),
    ]
    owner = next((o for o in meta.get("ownerReferences") or [] if o.get("controller")), None)
    if owner:
        out.append(_line("Controlled By:", f"{owner['kind']}/{owner['name']}"))
    for title, field, statuses in (
        ("Init Containers:", "initContainers", "initContainerStatuses"),
        ("Containers:", "containers", "containerStatuses"),
    ):
        if spec.get(field):
            by = {s["name"]: s for s in status.get(statuses) or []}
            out += [title, *(line for c in spec[field] for line in _container(c, by.get(c["name"], {})))]
    out += ["Conditions:", f"  {'Type':<28}Status"]
    out += [f"  {c['type']:<28}{c['status']} " for c in status.get("conditions") or []]
    out += ["Volumes:", *(line for v in spec.get("volumes") or [] for line in _volume(v))]
    out += [
        _line("QoS Class:", status.get("qosClass", "BestEffort")),
        _line("Node-Selectors:", "<none>"),
        _line("Tolerations:", "<none>"),
    ]
    return "\n".join([*out, *_events(events)])


def _line(name: str, value: Any) -> str:
    return f"{name:<{WIDTH}}{value}"


def _time(text: str | None) -> str:
    return times.parse(text).strftime("%a, %d %b %Y %H:%M:%S %z") if text else ""


def _map(name: str, values: dict[str, str], sign: str) -> list[str]:
    if not values:
        return [_line(name, "<none>")]
    rows = [f"{k}{sign}{v}" for k, v in sorted(values.items())]
    return [_line(name, rows[0]), *(_line("", r) for r in rows[1:])]


def _container(c: Json, status: Json) -> list[str]:
    ports = ", ".join(f"{p['containerPort']}/{p.get('protocol', 'TCP')}" for p in c.get("ports") or []) or "<none>"
    out = [
        f"  {c['name']}:",
        f"    Container ID:  {status.get('containerID', '')}",
        f"    Image:         {c.get('image', '')}",
        f"    Image ID:      {status.get('imageID', '')}",
        f"    Port:          {ports}",
        f"    Host Port:     {'<none>' if ports == '<none>' else '0/TCP'}",
    ]
    for field, title in (("command", "Command:"), ("args", "Args:")):
        if c.get(field):
            out += [f"    {title}", *(f"      {a}" for a in c[field])]
    out += _state("State:", status.get("state") or {})
    if status.get("lastState"):
        out += _state("Last State:", status["lastState"])
    out += [f"    Ready:          {status.get('ready', False)}", f"    Restart Count:  {status.get('restartCount', 0)}"]
    for field in ("limits", "requests"):
        if found := dig(c, "resources", field):
            out += [f"    {field.title()}:", *(f"      {k + ':':<9}{v}" for k, v in sorted(found.items()))]
    for field in ("liveness", "readiness", "startup"):
        if probe := c.get(f"{field}Probe"):
            out.append(f"    {field.title() + ':':<12}{_probe(probe)}")
    if c.get("env"):
        out += ["    Environment:", *(_variable(e) for e in c["env"])]
    else:
        out.append("    Environment:    <none>")
    mounts = c.get("volumeMounts") or []
    out += ["    Mounts:" if mounts else "    Mounts:         <none>"]
    return out + [
        f"      {m['mountPath']} from {m['name']} ({'ro' if m.get('readOnly') else 'rw'})"
        for m in sorted(mounts, key=lambda m: str(m["mountPath"]))
    ]


def _state(title: str, state: Json) -> list[str]:
    if found := state.get("running"):
        return [f"    {title:<16}Running", f"      Started:      {_time(found.get('startedAt'))}"]
    if found := state.get("terminated"):
        return [
            f"    {title:<16}Terminated",
            f"      Reason:       {found.get('reason', '')}",
            f"      Exit Code:    {found.get('exitCode', 0)}",
            f"      Started:      {_time(found.get('startedAt'))}",
            f"      Finished:     {_time(found.get('finishedAt'))}",
        ]
    found = state.get("waiting") or {}
    return [f"    {title:<16}Waiting", *([f"      Reason:       {found['reason']}"] if found.get("reason") else [])]


def _probe(p: Json) -> str:
    if h := p.get("httpGet"):
        what = (
            f"http-get {str(h.get('scheme', 'HTTP')).lower()}://{h.get('host', '')}:{h.get('port')}{h.get('path', '')}"
        )
    elif t := p.get("tcpSocket"):
        what = f"tcp-socket {t.get('host', '')}:{t.get('port')}"
    else:
        what = f"exec [{' '.join(dig(p, 'exec', 'command', default=[]))}]"
    return (
        f"{what} delay={p.get('initialDelaySeconds', 0)}s timeout={p.get('timeoutSeconds', 1)}s "
        f"period={p.get('periodSeconds', 10)}s #success={p.get('successThreshold', 1)} "
        f"#failure={p.get('failureThreshold', 3)}"
    )


def _variable(e: Json) -> str:
    source = e.get("valueFrom") or {}
    value = str(e.get("value", ""))
    if f := source.get("fieldRef"):
        value = f" ({f.get('apiVersion', 'v1')}:{f.get('fieldPath')})"
    elif r := source.get("resourceFieldRef"):
        value = f" ({r.get('containerName', '')}:{r.get('resource')})"
    elif source:
        kind = "configMapKeyRef" if "configMapKeyRef" in source else "secretKeyRef"
        value = f"<set to the key '{dig(source, kind, 'key')}' of '{dig(source, kind, 'name')}'>"
    first, *rest = value.split("\n")
    return "\n".join([f"      {e['name'] + ':':<32}{first}", *(f"      {'':<32}{line}" for line in rest)])


def _volume(v: Json) -> list[str]:
    name, kind = v["name"], next((k for k in v if k != "name"), "")
    given = v.get(kind) or {}
    out = [f"  {name}:"]
    match kind:
        case "emptyDir":
            out += ["    Type:       EmptyDir (a temporary directory that shares a pod's lifetime)"]
            out += [
                f"    Medium:     {given.get('medium', '')}",
                f"    SizeLimit:  {given.get('sizeLimit', '<unset>')}",
            ]
        case "configMap":
            out += [
                "    Type:      ConfigMap (a volume populated by a ConfigMap)",
                f"    Name:      {given.get('name')}",
            ]
            out += [f"    Optional:  {str(given.get('optional', False)).lower()}"]
        case "secret":
            out += [
                "    Type:        Secret (a volume populated by a Secret)",
                f"    SecretName:  {given.get('secretName')}",
            ]
        case "downwardAPI":
            out += ["    Type:  DownwardAPI (a volume populated by information about the pod)", "    Items:"]
            out += [f"      {dig(i, 'fieldRef', 'fieldPath')} -> {i.get('path')}" for i in given.get("items") or []]
        case "projected":
            out += [
                "    Type:                    Projected (a volume that contains injected data from multiple sources)"
            ]
            for s in given.get("sources") or []:
                if token := s.get("serviceAccountToken"):
                    out += [f"    TokenExpirationSeconds:  {token.get('expirationSeconds', 3600)}"]
                if config := s.get("configMap"):
                    out += [f"    ConfigMapName:           {config.get('name')}"]
        case _:
            out += [f"    Type:  {kind}: {jsons.dumps(given).decode()}"]
    return out


def _events(events: list[Json]) -> list[str]:
    if not events:
        return [_line("Events:", "<none>")]
    now = times.now()
    rows = [["Type", "Reason", "Age", "From", "Message"], ["----", "------", "----", "----", "-------"]]
    for e in sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or "")):
        at = e.get("lastTimestamp") or e.get("eventTime") or dig(e, "metadata", "creationTimestamp")
        age = duration.age((now - times.parse(at)).total_seconds()) if at else "<unknown>"
        by = dig(e, "source", "component") or e.get("reportingComponent") or ""
        rows.append([str(e.get("type", "")), str(e.get("reason", "")), age, str(by), str(e.get("message", "")).strip()])
    widths = [max(len(r[i]) for r in rows) for i in range(5)]
    return ["Events:", *("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)]
