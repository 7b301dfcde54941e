import assert from 'node:assert/strict'
import test from 'node:test'

import { amount, bytes, count, percent, rate, together, withGaps } from '../src/format.ts'

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

test('little is not shown as nothing, nor almost all as all', () => {
  assert.deepEqual([0, 1 / 900, 0.5, 12.34, 2500].map(rate), ['0 rps', '<0.01 rps', '0.50 rps', '12.3 rps', '2500 rps'])
  assert.deepEqual([0, 0.2, 900, 2.5e9].map(bytes), ['0 B/s', '<1 B/s', '900 B/s', '2.5 GB/s'])
  assert.deepEqual([0, 0.0004, 0.25, 0.996, 0.9997, 1].map(percent), ['0 %', '<0.1 %', '25 %', '99.6 %', '>99.9 %', '100 %'])
  assert.deepEqual([0, 0.0004, 0.25, 0.9997, 1].map((v) => amount(v, 'share')), ['0 %', '0.04 %', '25 %', '99.97 %', '100 %'])
})

test('one of something is not several', () => {
  assert.deepEqual([0, 1, 2].map((n) => count(n, 'proxy', 'proxies')), ['0 proxies', '1 proxy', '2 proxies'])
  assert.equal(count(1, 'span'), '1 span')
})
