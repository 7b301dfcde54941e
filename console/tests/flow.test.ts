import assert from 'node:assert/strict'
import test from 'node:test'

import { Flow, type Sight } from '../src/flow.ts'

const sight: Sight = { zoom: 1, pan: { x: 0, y: 0 }, width: 400, height: 300, scale: 1 }
const line = [
  { x: 0, y: 100 },
  { x: 200, y: 100 },
]

function flow(): Flow {
  const made = new Flow()
  made.route('a', line)
  return made
}

test('a dot runs from the start of its edge to the end, and is forgotten there', () => {
  const f = flow()
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }], 5000)
  assert.deepEqual(f.at(5000, sight), [{ x: 0, y: 100, error: false }])
  assert.deepEqual(f.at(5500, sight), [{ x: 100, y: 100, error: false }])
  assert.deepEqual(f.at(6000, sight), [])
  assert.equal(f.size, 0)
})

test('requests of a second start one after the other, and those that failed are told apart', () => {
  const f = flow()
  f.add([{ edge: 'a', count: 4, errors: 1, takes: 1000 }], 0)
  const seen = f.at(760, sight)
  assert.deepEqual(seen.map((d) => d.error), [true, false, false, false])
  assert.deepEqual(seen.map((d) => Math.round(d.x)), [152, 102, 52, 2])
})

test('an edge with one failure among many requests shows it', () => {
  const f = flow()
  f.add([{ edge: 'a', count: 1000, errors: 1, takes: 1500 }], 0)
  const seen = f.at(1000, sight)
  assert.equal(seen.length, 14)
  assert.equal(seen.filter((d) => d.error).length, 1)
})

test('dots follow the zoom, the pan and an edge that has moved', () => {
  const f = flow()
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }], 0)
  assert.deepEqual(f.at(500, { ...sight, zoom: 0.5, pan: { x: 10, y: 20 } }), [{ x: 60, y: 70, error: false }])
  f.route('a', [{ x: 0, y: 0 }, { x: 0, y: 200 }])
  assert.deepEqual(f.at(500, sight), [{ x: 0, y: 100, error: false }])
})

test('what is out of sight is not drawn, and the oldest dots give way', () => {
  const f = flow()
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }], 0)
  assert.deepEqual(f.at(500, { ...sight, pan: { x: -900, y: 0 } }), [])
  const many = Array.from({ length: 500 }, (_, i) => ({ edge: `e${i}`, count: 10, errors: 0, takes: 1000 }))
  f.add(many, 0)
  assert.equal(f.size, 1500)
  f.clear()
  assert.equal(f.size, 0)
})

test('dots leave edges that are hidden or dimmed, and no new ones come until they are shown again', () => {
  const f = flow()
  f.route('b', line)
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }, { edge: 'b', count: 1, errors: 0, takes: 1000 }], 0)
  f.hush(['a'])
  assert.equal(f.at(500, sight).length, 1)
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }], 500)
  assert.equal(f.at(600, sight).length, 1)
  f.hush([])
  f.add([{ edge: 'a', count: 1, errors: 0, takes: 1000 }], 600)
  assert.equal(f.at(700, sight).length, 2)
})
