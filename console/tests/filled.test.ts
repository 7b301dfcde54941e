import assert from 'node:assert/strict'
import test from 'node:test'

import { filled } from '../src/filled.ts'

test('variables of a query become values, which stay what they are', () => {
  const query = 'sum(rate(a{b="$workload", c="$namespace"}[$window]))'
  const values = { workload: 'web', namespace: 'shop', window: '60s' }
  assert.equal(filled(query, values), 'sum(rate(a{b="web", c="shop"}[60s]))')
  assert.equal(filled('a{b="$workload"}', { workload: '"} or b{c="' }), 'a{b="\\"} or b{c=\\""}')
  assert.equal(filled('a{b="$workload"}', { workload: "$' $& $$ $namespace", namespace: 'shop' }), `a{b="$' $& $$ $namespace"}`)
  assert.equal(filled('a{b="$other"}', values), 'a{b="$other"}')
})
