// Find and hide by expression, in Kiali's language: `rt > 500`, `%error > 1 and node = app`, `name *= rev`, `!healthy`.

import type { Badge, Edge, Node } from './shapes'

/** What is asked of one node. */
export interface NodeFacts {
  node: Node
  badges: Badge[]
  healthy: boolean
}
/** What is asked of one edge; `share` of its source's requests. */
export interface EdgeFacts {
  edge: Edge
  share: number
}
export interface Found {
  node: (facts: NodeFacts) => boolean
  edge: (facts: EdgeFacts) => boolean
}
export class Wrong extends Error {}

type Value = string | number | boolean | null
type Of<T> = Record<string, (facts: T) => Value>

const TYPES: Record<string, string> = { box: 'app', svc: 'service', serviceentry: 'external' }

const has = (badge: Badge) => (f: NodeFacts) => f.badges.includes(badge)

const NODE: Of<NodeFacts> = {
  name: (f) => f.node.name,
  namespace: (f) => f.node.namespace,
  node: (f) => f.node.kind,
  app: (f) => f.node.app ?? null,
  version: (f) => f.node.version ?? null,
  workload: (f) => f.node.workload ?? null,
  service: (f) => (f.node.kind === 'service' ? f.node.name : null),
  httpin: (f) => f.node.rateIn,
  httpout: (f) => f.node.rateOut,
  '%error': (f) => f.node.errorRate * 100,
  healthy: (f) => f.healthy,
  idle: (f) => !f.node.rateIn && !f.node.rateOut,
  sidecar: (f) => !f.badges.includes('no-sidecar'),
  outsider: (f) => f.node.kind === 'external' || f.node.kind === 'unknown',
  circuitbreaker: has('circuit-breaker'),
  virtualservice: (f) => f.badges.some((b) => ['virtual-service', 'fault', 'timeout', 'retries', 'mirror', 'shift'].includes(b)),
  faultinjection: has('fault'),
  timeout: has('timeout'),
  retries: has('retries'),
  mirroring: has('mirror'),
  trafficshifting: has('shift'),
}

const EDGE: Of<EdgeFacts> = {
  protocol: (f) => f.edge.protocol,
  http: (f) => f.edge.protocol === 'http',
  grpc: (f) => f.edge.protocol === 'grpc',
  tcp: (f) => f.edge.protocol === 'tcp',
  traffic: (f) => f.edge.rate || f.edge.bytesRate > 0,
  mtls: (f) => f.edge.mtls !== null && f.edge.mtls > 0,
  '%mtls': (f) => (f.edge.mtls ?? 0) * 100,
  '%error': (f) => f.edge.errorRate * 100,
  '%traffic': (f) => f.share * 100,
  rate: (f) => f.edge.rate,
  responsetime: (f) => f.edge.p95,
  p50: (f) => f.edge.p50,
  p99: (f) => f.edge.p99,
  throughput: (f) => f.edge.bytesRate,
  code: (f) => Object.keys(f.edge.codes).join(' '),
  flag: (f) => Object.keys(f.edge.flags).join(' '),
  healthy: (f) => !f.edge.errorRate,
}

const SHORT: Record<string, string> = {
  rt: 'responsetime',
  errors: '%error',
  '%errors': '%error',
  error: '%error',
  '%httptraffic': '%traffic',
  '%grpctraffic': '%traffic',
  cb: 'circuitbreaker',
  fi: 'faultinjection',
  vs: 'virtualservice',
  ns: 'namespace',
  svc: 'service',
  wl: 'workload',
  ts: 'trafficshifting',
  sc: 'sidecar',
}
export const OPERANDS = [...new Set([...Object.keys(NODE), ...Object.keys(EDGE)])].sort()

const WORDS: [RegExp, string][] = [
  [/\s+not\s+contains\s+/gi, ' !*= '],
  [/\s+contains\s+/gi, ' *= '],
  [/\s+starts?with\s+/gi, ' ^= '],
  [/\s+ends?with\s+/gi, ' $= '],
  [/^\s*not\s+/gi, '!'],
  [/\b(and|or)\s+not\s+/gi, '$1 !'],
]
const COMPARISON = /^\s*(%?[a-z0-9]+)\s*(!\*=|!=|>=|<=|\*=|\^=|\$=|=|>|<)\s*(.*?)\s*$/i
const ALONE = /^\s*(!?)\s*(%?[a-z0-9]+)\s*$/i

/** Reads an expression. Raises Wrong with a sentence where it cannot; an empty one finds nothing. */
export function parse(text: string): Found {
  let spelled = text
  for (const [words, sign] of WORDS) spelled = spelled.replace(words, sign)
  if (!spelled.trim()) return { node: () => false, edge: () => false }
  const ands = /\s+and\s+|&&/i
  const ors = /\s+or\s+|\|\|/i
  if (ands.test(spelled) && ors.test(spelled)) throw new Wrong('An expression has either AND or OR, not both.')
  const all = ands.test(spelled)
  const parts = spelled.split(all ? ands : ors).map(term)
  const joined = <T>(tests: ((facts: T) => boolean)[]) => (facts: T) => (all ? tests.length > 0 && tests.every((t) => t(facts)) : tests.some((t) => t(facts)))
  // With AND, a term that only edges have finds no node, and the other way round.
  const of = <K extends 'node' | 'edge'>(kind: K) => {
    const tests = parts.map((p) => p[kind]).filter((t) => t !== undefined) as Found[K][]
    return all && tests.length < parts.length ? () => false : joined(tests as ((facts: unknown) => boolean)[])
  }
  return { node: of('node') as Found['node'], edge: of('edge') as Found['edge'] }
}

function term(text: string): Partial<Found> {
  const compared = COMPARISON.exec(text)
  if (compared) {
    const [, name = '', sign = '', value = ''] = compared
    if (!value) throw new Wrong(`What is ${name} to be compared with? For example: ${name} ${sign} 5`)
    return both(name, (found) => holds(found, sign, value, named(name) === 'node'))
  }
  const alone = ALONE.exec(text)
  if (!alone) throw new Wrong(`“${text.trim()}” is not an expression; write one as rt > 500, %error > 1, name = reviews or !healthy.`)
  const [, not = '', name = ''] = alone
  return both(name, (found) => Boolean(found) !== (not === '!'))
}

function named(name: string): string {
  const low = name.toLowerCase()
  return SHORT[low] ?? low
}

function both(name: string, test: (found: Value) => boolean): Partial<Found> {
  const operand = named(name)
  const [ofNode, ofEdge] = [NODE[operand], EDGE[operand]]
  if (!ofNode && !ofEdge) throw new Wrong(`There is nothing called ${name}; there are ${OPERANDS.join(', ')}.`)
  return {
    ...(ofNode ? { node: (f: NodeFacts) => test(ofNode(f)) } : {}),
    ...(ofEdge ? { edge: (f: EdgeFacts) => test(ofEdge(f)) } : {}),
  }
}

function holds(found: Value, sign: string, wanted: string, type: boolean): boolean {
  if (found === null) return sign === '!=' || sign === '!*='
  if (['>', '<', '>=', '<='].includes(sign)) {
    const limit = Number(wanted.replace(/\s*(ms|%|rps|bps)$/i, ''))
    if (Number.isNaN(limit)) throw new Wrong(`${sign} compares numbers, and “${wanted}” is none.`)
    const value = Number(found)
    return sign === '>' ? value > limit : sign === '<' ? value < limit : sign === '>=' ? value >= limit : value <= limit
  }
  const low = wanted.toLowerCase().replace(/^["']|["']$/g, '')
  const value = type ? (TYPES[low] ?? low) : low
  const is = typeof found === 'number' ? String(found === Number(value) ? value : found) : String(found).toLowerCase()
  if (sign === '=') return is === value
  if (sign === '!=') return is !== value
  if (sign === '*=') return is.includes(value)
  if (sign === '!*=') return !is.includes(value)
  return sign === '^=' ? is.startsWith(value) : is.endsWith(value)
}
