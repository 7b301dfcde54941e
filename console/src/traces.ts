// Traces as the server gives them (Jaeger's JSON), and as the page draws them.

export interface Tag {
  key: string
  value: string | number | boolean
}

export interface RawSpan {
  traceID: string
  spanID: string
  operationName: string
  references: { spanID: string }[]
  startTime: number
  duration: number
  tags: Tag[]
  logs: { timestamp: number; fields: Tag[] }[]
  processID: string
}

export interface RawTrace {
  traceID: string
  spans: RawSpan[]
  processes: Record<string, { serviceName: string }>
}

export interface Dropped {
  service: string
  calls: number
  of: number
  example: string
  within: string
}

export interface Row {
  span: RawSpan
  service: string
  depth: number
  failed: boolean
  /** Its parent is in no span that arrived. */
  orphan: boolean
  children: number
}

/** Microseconds since 1970, the length in microseconds. */
export interface Trace {
  id: string
  rows: Row[]
  start: number
  length: number
  root: string
  services: string[]
  errors: number
}

const tag = (span: RawSpan, key: string) => span.tags.find((t) => t.key === key)?.value

function failed(span: RawSpan): boolean {
  const error = tag(span, 'error')
  return (error !== undefined && String(error) !== 'false') || /^5/.test(String(tag(span, 'http.status_code') ?? ''))
}

/** What a span asked for: method and path, where its proxy or program tells them, else its name. */
function asked(span: RawSpan): string {
  const method = tag(span, 'http.method') ?? tag(span, 'http.request.method')
  const url = String(tag(span, 'http.url') ?? tag(span, 'url.path') ?? '')
  const path = url.replace(/^[a-z]+:\/\/[^/]*/, '').split('?')[0]
  return method && path ? `${method} ${path}` : span.operationName
}

/** Parents before their children, each in the order of its start. */
export function arranged(trace: RawTrace): Trace {
  const known = new Set(trace.spans.map((s) => s.spanID))
  const below = new Map<string, RawSpan[]>()
  for (const span of [...trace.spans].sort((a, b) => a.startTime - b.startTime)) {
    const parent = span.references[0]?.spanID ?? ''
    const key = known.has(parent) && parent !== span.spanID ? parent : ''
    below.set(key, [...(below.get(key) ?? []), span])
  }
  const rows: Row[] = []
  const seen = new Set<string>()
  const stack = (below.get('') ?? []).map((span) => ({ span, depth: 0 })).reverse()
  while (stack.length) {
    const { span, depth } = stack.pop()!
    if (seen.has(span.spanID)) continue
    seen.add(span.spanID)
    const children = below.get(span.spanID) ?? []
    rows.push({
      span,
      depth,
      service: trace.processes[span.processID]?.serviceName ?? 'unknown',
      failed: failed(span),
      orphan: depth === 0 && span.references.length > 0,
      children: children.length,
    })
    for (const child of [...children].reverse()) stack.push({ span: child, depth: depth + 1 })
  }
  const start = Math.min(...rows.map((r) => r.span.startTime))
  const stop = Math.max(...rows.map((r) => r.span.startTime + r.span.duration))
  const first = rows[0]
  return {
    id: trace.traceID,
    rows,
    start,
    length: Math.max(1, stop - start),
    root: first ? `${first.service}: ${asked(first.span)}` : '',
    services: [...new Set(rows.map((r) => r.service))],
    errors: rows.filter((r) => r.failed).length,
  }
}

export function took(us: number): string {
  if (us < 1000) return `${us} µs`
  return us < 1_000_000 ? `${+(us / 1000).toFixed(us < 10_000 ? 1 : 0)} ms` : `${(us / 1_000_000).toFixed(2)} s`
}

const COLORS = ['#2a6fdb', '#e8890c', '#2f9e5b', '#8a5cd6', '#0f9aa8', '#c2418f', '#b5651d', '#6b7a8c', '#7a9a01']

/** The color of one of the services; no red, which is for errors. */
export const color = (services: string[], service: string) => COLORS[Math.max(0, services.indexOf(service)) % COLORS.length]
