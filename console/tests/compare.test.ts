import assert from 'node:assert/strict'
import test from 'node:test'

import { compared, heat, operations } from '../src/compare.ts'
import { arranged, type RawSpan, type Trace } from '../src/traces.ts'

let ids = 0
function trace(...spans: [id: string, parent: string, service: string, operation: string, start: number, duration: number, error?: boolean][]): Trace {
  const raw = spans.map(([spanID, parent, service, operationName, startTime, duration, error]): RawSpan => ({
    traceID: 't', spanID, operationName, references: parent ? [{ spanID: parent }] : [], startTime, duration, tags: error ? [{ key: 'error', value: true }] : [], logs: [], processID: service,
  }))
  return arranged({ traceID: `t${ids++}`, spans: raw, processes: Object.fromEntries(spans.map((s) => [s[2], { serviceName: s[2] }])) })
}

const SLOW = trace(['1', '', 'web', 'GET /', 0, 100], ['2', '1', 'cart', 'GET /cart', 10, 80], ['3', '1', 'stock', 'GET /stock', 92, 5])
const FAST = trace(['1', '', 'web', 'GET /', 0, 30], ['2', '1', 'cart', 'GET /cart', 5, 10], ['4', '1', 'cart', 'GET /cart', 16, 10, true], ['5', '2', 'db', 'query', 7, 3])

test('spans of two traces are paired by service and operation below the same callers', () => {
  const found = compared(SLOW, FAST).map((p) => [p.service, p.depth, p.counts, p.took, p.failed])
  assert.deepEqual(found, [
    ['web', 0, [1, 1], [100, 30], [0, 0]],
    ['cart', 1, [1, 2], [80, 20], [0, 1]],
    ['db', 2, [0, 1], [0, 3], [0, 0]],
    ['stock', 1, [1, 0], [5, 0], [0, 0]],
  ])
})

test('operations are counted over traces, the slowest first', () => {
  const found = operations([SLOW, FAST])
  assert.deepEqual(found[0], { service: 'web', operation: 'GET /', count: 2, failed: 0, median: 30, p95: 100 })
  assert.deepEqual(found[1], { service: 'cart', operation: 'GET /cart', count: 3, failed: 1, median: 10, p95: 80 })
})

test('a heat map counts traces by time and length', () => {
  const { cells, rows } = heat([SLOW, FAST, trace(['1', '', 'web', 'GET /', 1000, 120, true])], 10)
  assert.deepEqual(rows, [16, 32, 64])
  assert.deepEqual(cells, [
    { column: 0, row: 2, count: 1, errors: 0 },
    { column: 0, row: 0, count: 1, errors: 1 },
    { column: 9, row: 2, count: 1, errors: 1 },
  ])
})
