import assert from 'node:assert/strict'
import test from 'node:test'

import { below, pathOf, placeAt } from '../src/caret.ts'
import type { Field } from '../src/shapes.ts'

const TEXT = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    route:
    - destination:
        host: reviews
      weight: 90
    timeout: 3s

  - route:
      - destination:
          host: ratings
---
kind: Gateway
spec:
  servers:
    - port:
        number: 80
`
const rows = TEXT.split('\n')
const at = (text: string, from = 0) => {
  const row = rows.findIndex((l, i) => i >= from && l.includes(text))
  return placeAt(TEXT, row, rows[row]!.length)
}

test('the caret is in the field whose line it is on', () => {
  assert.deepEqual(at('timeout'), { kind: 'VirtualService', parts: ['spec', 'http[]', 'timeout'] })
  assert.deepEqual(at('host: reviews').parts, ['spec', 'http[]', 'route[]', 'destination', 'host'])
  assert.deepEqual(at('weight').parts, ['spec', 'http[]', 'route[]', 'weight'])
  assert.deepEqual(at('exact').parts, ['spec', 'http[]', 'match[]', 'headers', 'end-user', 'exact'])
  assert.deepEqual(at('host: ratings').parts, ['spec', 'http[]', 'route[]', 'destination', 'host'])
  assert.deepEqual(at('name: reviews').parts, ['metadata', 'name'])
  assert.deepEqual(at('- match').parts, ['spec', 'http[]', 'match'])
})

test('an empty line belongs to what it is indented as', () => {
  const row = rows.indexOf('')
  assert.deepEqual(placeAt(TEXT, row, 4).parts, ['spec', 'http[]'])
  assert.deepEqual(placeAt(TEXT, row, 2).parts, ['spec'])
})

test('each document has a kind of its own', () => {
  assert.deepEqual(at('number'), { kind: 'Gateway', parts: ['spec', 'servers[]', 'port', 'number'] })
})

const field = (type: string): Field => ({ type, values: [], required: false, says: '', idle: '' })
const FIELDS = {
  http: field('list of object'),
  'http[].timeout': field('text'),
  'http[].match': field('list of object'),
  'http[].match[].headers': field('map of object'),
  'http[].match[].headers{}.exact': field('text'),
  'http[].match[].headers{}.prefix': field('text'),
}

test('the path of a place knows lists and the keys of maps', () => {
  assert.equal(pathOf(FIELDS, ['spec', 'http[]', 'match[]', 'headers', 'end-user', 'exact']), 'http[].match[].headers{}.exact')
  assert.equal(pathOf(FIELDS, ['spec']), '')
  assert.equal(pathOf(FIELDS, ['metadata', 'name']), null)
  assert.deepEqual(below(FIELDS, 'http[]').map(([n]) => n), ['timeout', 'match'])
  assert.deepEqual(below(FIELDS, 'http[].match[].headers{}').map(([n]) => n), ['exact', 'prefix'])
  assert.deepEqual(below(FIELDS, '').map(([n]) => n), ['http'])
})
