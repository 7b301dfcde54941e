import assert from 'node:assert/strict'
import test from 'node:test'

import { parse, Wrong } from '../src/find.ts'
import type { Badge, Edge, Node } from '../src/shapes.ts'

const node = (more: Partial<Node> = {}): Node => ({ id: 'n', kind: 'app', name: 'reviews', namespace: 'default', app: 'reviews', version: 'v2', rateIn: 3, rateOut: 0, errorRate: 0.02, ...more })
const edge = (more: Partial<Edge> = {}): Edge =>
  ({ id: 'e', source: 'a', target: 'b', protocol: 'http', requests: 9, rate: 3, errorRate: 0, codes: { 200: 9 }, flags: {}, bytesRate: 0, connections: 0, mtls: 1, p50: 5, p90: 400, p95: 612, p99: 900, now: 0, nowErrors: 0, ...more })
const onNode = (text: string, of = node(), badges: Badge[] = [], healthy = true) => parse(text).node({ node: of, badges, healthy })
const onEdge = (text: string, of = edge(), share = 0.4) => parse(text).edge({ edge: of, share })

test('response times, errors and shares of edges are compared as numbers', () => {
  assert.ok(onEdge('rt > 500'))
  assert.ok(!onEdge('rt > 700'))
  assert.ok(!onEdge('rt > 500', edge({ p95: null })))
  assert.ok(onEdge('responsetime >= 612ms'))
  assert.ok(onEdge('%traffic = 40'))
  assert.ok(!onEdge('%error > 0'))
  assert.ok(onEdge('code *= 20'))
})

test('names are compared as text, whatever the case', () => {
  assert.ok(onNode('name = Reviews'))
  assert.ok(onNode('name *= view'))
  assert.ok(onNode('name contains view'))
  assert.ok(onNode('name not contains details'))
  assert.ok(onNode('version ^= v'))
  assert.ok(onNode('app endswith ws'))
  assert.ok(!onNode('name != reviews'))
  assert.ok(onNode('node = svc', node({ kind: 'service' })))
})

test('a word alone says what something is, with ! or NOT what it is not', () => {
  assert.ok(onNode('healthy'))
  assert.ok(onNode('!healthy', node(), [], false))
  assert.ok(onNode('not healthy', node(), [], false))
  assert.ok(onNode('cb', node(), ['circuit-breaker']))
  assert.ok(!onNode('vs', node(), []))
  assert.ok(onNode('!sidecar', node(), ['no-sidecar']))
  assert.ok(onEdge('mtls') && !onEdge('!mtls') && onEdge('http') && !onEdge('tcp'))
})

test('terms are joined by AND or by OR', () => {
  assert.ok(onNode('name = reviews and %error > 1'))
  assert.ok(!onNode('name = reviews and %error > 3'))
  assert.ok(onNode('name = details OR name = reviews'))
  assert.ok(!onNode('rt > 5 and name = reviews'), 'only edges have response times')
  assert.ok(onEdge('rt > 5 or name = reviews'))
  assert.throws(() => parse('a = 1 and b = 2 or c = 3'), /either AND or OR/)
})

test('what cannot be read is said in a sentence', () => {
  assert.throws(() => parse('colour = red'), /nothing called colour/)
  assert.throws(() => onEdge('rt > fast'), Wrong)
  assert.throws(() => parse('rt >'), /compared with/)
  assert.throws(() => parse('what is this'), /not an expression/)
  assert.equal(onNode(''), false)
})
