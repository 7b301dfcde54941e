import assert from 'node:assert/strict'
import test from 'node:test'

import { amount, together, withGaps } from '../src/format.ts'

test('a line does not lead across a time without values', () => {
  assert.deepEqual(withGaps([0, 5, 10, 60, 65]), [0, 5, 10, 15, 60, 65])
  assert.deepEqual(withGaps([0, 5, 10]), [0, 5, 10])
  assert.deepEqual(withGaps([7]), [7])
  assert.deepEqual(withGaps([]), [])
})

test('what runs is no better than its requests, and no worse than either', () => {
  const failing = { rate: 2, errors: 0.3 }
  assert.deepEqual(together('healthy', '', undefined), { state: 'healthy', says: '' })
  assert.deepEqual(together('healthy', '', { rate: 2, errors: 0 }), { state: 'healthy', says: '' })
  assert.deepEqual(together('healthy', '', failing), { state: 'failing', says: '30 % of its requests fail' })
  assert.deepEqual(together('degraded', 'a: 1 of 2 pods ready', { rate: 2, errors: 0.01 }), {
    state: 'degraded',
    says: 'a: 1 of 2 pods ready; 1.0 % of its requests fail',
  })
  assert.equal(together('down', 'no pods', failing).state, 'down')
})

test('bytes are whole where they are few', () => {
  assert.deepEqual([0, 0.3, 175.4, 1500].map((v) => amount(v, 'bytes')), ['0 B', '0.3 B', '175 B', '1.5 kB'])
})
