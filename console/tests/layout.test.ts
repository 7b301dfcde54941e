import assert from 'node:assert/strict'
import test from 'node:test'

import { arrange, HEIGHT, relative, stretched, WIDTH, type Box, type Link } from '../src/layout.ts'
import { Path, type Point } from '../src/path.ts'

function crosses(a: Point, b: Point, at: Point): boolean {
  // Whether a line comes into the symbol, tried in many points.
  for (let i = 0; i <= 60; i++) {
    const [x, y] = [a.x + ((b.x - a.x) * i) / 60, a.y + ((b.y - a.y) * i) / 60]
    if (Math.abs(x - at.x) < WIDTH / 2 && Math.abs(y - at.y) < HEIGHT / 2) return true
  }
  return false
}

function through(nodes: Box[], links: Link[], boxes: string[], down: boolean): string[] {
  const { places, bends } = arrange(boxes, nodes, links, down)
  const out: string[] = []
  for (const link of links) {
    const path = [places.get(link.source)!, ...bends.get(link.id)!, places.get(link.target)!]
    for (const { id } of nodes)
      if (id !== link.source && id !== link.target && path.slice(1).some((p, i) => crosses(path[i]!, p, places.get(id)!))) out.push(`${link.id} through ${id}`)
  }
  return out
}

/** Numbers from 0 to 1 that are the same in each run. */
function numbers(seed: number) {
  let state = seed
  return () => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648
}

function random(seed: number, count: number): { nodes: Box[]; links: Link[]; boxes: string[] } {
  const next = numbers(seed)
  const nodes: Box[] = []
  const boxes: string[] = []
  for (let i = 0; i < count; i++) {
    const boxed = next() < 0.3
    if (boxed) boxes.push(`box${i}`)
    nodes.push({ id: `n${i}`, ...(boxed ? { parent: `box${i}` } : {}) })
    if (boxed) nodes.push({ id: `n${i}b`, parent: `box${i}` })
  }
  const links = new Map<string, Link>()
  nodes.slice(1).forEach(({ id }, i) => {
    for (let k = 0; k < 1 + Math.floor(next() * 2); k++) {
      const [a, b] = [nodes[Math.floor(next() * (i + 1))]!.id, id]
      const [source, target] = next() < 0.1 ? [b, a] : [a, b]
      if (source !== target) links.set(`${source}>${target}`, { id: `${source}>${target}`, source, target })
    }
  })
  return { nodes, links: [...links.values()], boxes }
}

for (const down of [false, true])
  test(`no edge of random graphs runs through a node it has nothing to do with, ${down ? 'top down' : 'left to right'}`, () => {
    for (let seed = 1; seed <= 12; seed++) {
      const { nodes, links, boxes } = random(seed, 8 + seed)
      assert.deepEqual(through(nodes, links, boxes, down), [], `graph ${seed}`)
    }
  })

test('a label of three lines has room above the node below it', () => {
  const nodes = ['a', 'b', 'c'].map((id) => ({ id, lines: 3 }))
  const links = ['b', 'c'].map((target) => ({ id: `a>${target}`, source: 'a', target }))
  const { places } = arrange([], nodes, links, false)
  const between = Math.abs(places.get('b')!.y - places.get('c')!.y) - HEIGHT
  assert.ok(between >= 3 * 15, `${between} pixels`)
})

test('a graph is stretched to the shape of a canvas that has room there', () => {
  const nodes = ['a', 'b', 'c'].map((id) => ({ id }))
  const links = ['b', 'c'].map((target) => ({ id: `a>${target}`, source: 'a', target }))
  const made = arrange([], nodes, links, false)
  const [wide, high] = [stretched(made, 2000, 300), stretched(made, 300, 2000)]
  const length = (a: typeof made) => a.places.get('b')!.x - a.places.get('a')!.x
  assert.ok(length(wide) > 1.5 * length(made))
  assert.deepEqual([...wide.places.values()].map((p) => p.y), [...made.places.values()].map((p) => p.y))
  const between = (a: typeof made) => Math.abs(a.places.get('c')!.y - a.places.get('b')!.y)
  assert.ok(between(high) > 1.5 * between(made))
  assert.equal(length(high), length(made))
  assert.deepEqual([...stretched(arrange([], [], [], true), 300, 300).places], [])
})

test('requests flow from left to right', () => {
  const links = [['gateway', 'page'], ['page', 'details'], ['page', 'reviews'], ['reviews', 'ratings'], ['page', 'ratings']].map(([source, target]) => ({ id: `${source}>${target}`, source: source!, target: target! }))
  const { places } = arrange([], ['gateway', 'page', 'details', 'reviews', 'ratings'].map((id) => ({ id })), links, false)
  for (const { source, target } of links) assert.ok(places.get(source)!.x < places.get(target)!.x)
})

test('the same graph gets the same places, in whichever order it comes', () => {
  const { nodes, links, boxes } = random(5, 12)
  const one = arrange(boxes, nodes, links, false)
  const two = arrange([...boxes].reverse(), [...nodes].reverse(), [...links].reverse(), false)
  assert.deepEqual([...one.places], [...two.places])
})

test('a point relative to a line, and a share of a path', () => {
  assert.deepEqual(relative({ x: 0, y: 0 }, { x: 10, y: 0 }, { x: 5, y: 3 }), { weight: 0.5, distance: 3 })
  const path = new Path([{ x: 0, y: 0 }, { x: 10, y: 0 }, { x: 10, y: 10 }])
  assert.deepEqual(path.at(0.25), { x: 5, y: 0 })
  assert.deepEqual(path.at(1), { x: 10, y: 10 })
})
