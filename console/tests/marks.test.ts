import assert from 'node:assert/strict'
import test from 'node:test'

import { into } from '../src/into.ts'

test('a name at the side of the canvas is moved into it', () => {
  assert.equal(into(100, 80, 400), 100)
  assert.equal(into(10, 80, 400), 40)
  assert.equal(into(390, 80, 400), 360)
  assert.equal(into(-20, 80, 400), -20, 'what it names is not seen')
  assert.equal(into(10, 500, 400), 10, 'it is wider than the canvas')
})
