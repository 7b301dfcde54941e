import assert from 'node:assert/strict'
import test from 'node:test'

import { withGaps } from '../src/format.ts'

test('a line does not lead across a time without values', () => {
  assert.deepEqual(withGaps([0, 5, 10, 60, 65]), [0, 5, 10, 15, 60, 65])
  assert.deepEqual(withGaps([0, 5, 10]), [0, 5, 10])
  assert.deepEqual(withGaps([7]), [7])
  assert.deepEqual(withGaps([]), [])
})
