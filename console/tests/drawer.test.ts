import assert from 'node:assert/strict'
import test from 'node:test'

import { drawer } from '../src/drawer.ts'

/** What the graph's worker is told, and whether it is still there. */
class FakeWorker {
  messages: unknown[] = []
  ended = false

  postMessage(message: unknown) {
    this.messages.push(message)
  }

  terminate() {
    this.ended = true
  }
}

const canvas = (more: object) => more as HTMLCanvasElement
const offscreen = {}

test('the worker gets the canvas to draw on', () => {
  const worker = new FakeWorker()
  const made = drawer(canvas({ transferControlToOffscreen: () => offscreen }), () => worker as unknown as Worker)
  assert.equal(made, worker)
  assert.deepEqual(worker.messages, [{ kind: 'canvas', canvas: offscreen }])
  assert.equal(worker.ended, false)
})

test('a browser without canvases for workers shows the graph without dots', () => {
  const worker = new FakeWorker()
  assert.equal(
    drawer(canvas({}), () => worker as unknown as Worker),
    null,
  )
  assert.equal(worker.ended, true)
})

test('a browser that refuses to start a worker shows the graph without dots', () => {
  const refused = () => {
    throw new Error('refused by the Content Security Policy')
  }
  assert.equal(drawer(canvas({ transferControlToOffscreen: () => offscreen }), refused), null)
})
