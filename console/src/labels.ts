// What stands at the edges and nodes of the graph.

import { bytes, milliseconds, percent, rate } from './format'
import type { Badge, Edge, Graph } from './shapes'

export const LABELS: [string, string][] = [
  ['rate', 'Traffic rate'],
  ['share', 'Traffic share'],
  ['p50', 'Response time, median'],
  ['p95', 'Response time, p95'],
  ['p99', 'Response time, p99'],
  ['throughput', 'Throughput'],
  ['errors', 'Errors'],
  ['none', 'No labels'],
]

export function label(edge: Edge, kind: string, share: number): string {
  if (kind === 'none') return ''
  if (kind === 'share') return edge.rate ? percent(share) : ''
  if (kind === 'throughput' || edge.protocol === 'tcp') return edge.bytesRate ? bytes(edge.bytesRate) : kind === 'throughput' ? '' : bytes(0)
  if (kind === 'errors') return edge.errorRate ? percent(edge.errorRate) : ''
  if (kind === 'p50' || kind === 'p95' || kind === 'p99') return edge[kind] === null ? '' : milliseconds(edge[kind])
  return rate(edge.rate)
}

/** The share that each edge has of the requests that its source sends. */
export function shares(graph: Graph): Map<string, number> {
  const sent = new Map<string, number>()
  for (const e of graph.edges) sent.set(e.source, (sent.get(e.source) ?? 0) + e.rate)
  return new Map(graph.edges.map((e) => [e.id, e.rate ? e.rate / sent.get(e.source)! : 0]))
}

/** A sign of 16 by 16, drawn as lines, and what it means. */
export const BADGES: Record<Badge, { path: string; text: string }> = {
  'no-sidecar': { path: 'M8 2l6.5 11.5h-13zM8 6v4M8 11.6v.4', text: 'pods without a sidecar' },
  fault: { path: 'M8 2a6 6 0 1 0 .01 0zM4 4l8 8', text: 'injected faults' },
  'circuit-breaker': { path: 'M9.5 1.5L4 9h4l-1.5 5.5L12 7H8z', text: 'circuit breaker' },
  shift: { path: 'M2 8h4l4-5h4M6 8l4 5h4M12 1l2 2-2 2M12 11l2 2-2 2', text: 'traffic shifting' },
  timeout: { path: 'M8 2a6 6 0 1 0 .01 0zM8 4.5V8l2.5 2', text: 'timeout' },
  retries: { path: 'M13 8a5 5 0 1 1-1.5-3.6M12 1.5v3.3H8.7', text: 'retries' },
  mirror: { path: 'M8 1.5v13M6 4L2 12h4zM10 4l4 8h-4z', text: 'mirroring' },
  'virtual-service': { path: 'M2 8h4l4-4h4M6 8l4 4h4', text: 'VirtualService' },
  gateway: { path: 'M8 2a6 6 0 1 0 .01 0zM2 8h12M8 2c-4 4-4 8 0 12c4-4 4-8 0-12', text: 'reached through a gateway' },
}
